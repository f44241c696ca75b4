-- wrk: every request posts the body of the file BODY as BODY_TYPE. Prints one JSON line when it is done.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = os.getenv("BODY_TYPE")
local header = os.getenv("HEADER_LENGTH")
if header then wrk.headers["Inference-Header-Content-Length"] = header end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "s": %f, "p50_ms": %f, "p99_ms": %f, "max_ms": %f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
