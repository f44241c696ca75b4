"""Environment variables that Ray reads or sets and does not document.

`READ_IN` has the file of Ray's package that reads or sets each.
"""

from collections.abc import Mapping

TRAIN_HEALTH_CHECK_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""Seconds between two polls of the workers by Train's controller."""
TRAIN_PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""0: Train starts no actor per attempt that watches for draining nodes."""
TRAIN_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Seconds that a group of workers may wait for its places."""
WORKER_NICENESS = "RAY_worker_niceness"
"""Increment of the workers' niceness; 15 by default."""
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Metadata of a job, as JSON, set for its entrypoint."""
JOB_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Seconds between SIGTERM and SIGKILL of a job that is stopped; 3 by default."""
TUNE_LOOSE_METRICS = "TUNE_DISABLE_STRICT_METRIC_CHECKING"
"""1: a result may lack the metric."""
SERVE_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
"""1: HAProxy stands in front of the replicas instead of Serve's own proxy."""
SERVE_THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
"""1: replicas answer without the parts of Serve's request path that cost most."""
SERVE_SEPARATE_ROUTER = "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"
"""1: handles need no event loop of the process that has them; 0 where Serve is optimized for throughput."""
SERVE_PROXY_READY = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
"""Seconds that a proxy may take to say that it is ready; 5 by default."""
SERVE_DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
"""Seconds that a replica stays after it was taken out of HAProxy's list; 30 by default."""
SERVE_HAPROXY_FILES: Mapping[str, str] = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "/admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "/server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "/metrics.sock",
}
"""Variables for HAProxy's files, with the paths relative to its folder."""
SERVE_HAPROXY_PORTS: Mapping[str, int] = {
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
}
"""Variables for HAProxy's own ports, with Ray's defaults.

Another HAProxy on these ports keeps ours from starting.
"""
SERVE_HAPROXY_LOG = "RAY_SERVE_HAPROXY_LOG_TARGET"
"""Server that gets a line of log for each request; by default one on this machine."""
SERVE_HAPROXY_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
"""Executable that is started as HAProxy."""
SERVE_HAPROXY_METRICS = "RAY_SERVE_HAPROXY_METRICS_ENABLED"
"""0: HAProxy's manager is not told of each request, of which it would make Serve's metrics of the proxy."""
SERVE_HAPROXY_RETRY_ON = "RAY_SERVE_HAPROXY_RETRY_ON"
"""HAProxy's `retry-on`: the failures after which a request is sent to another replica."""
SERVE_HAPROXY_RETRIES = "RAY_SERVE_HAPROXY_RETRIES"
"""Times that a request is sent again; 3 by default."""
SERVE_HAPROXY_BUFFER = "RAY_SERVE_HAPROXY_TUNE_BUFSIZE"
"""Bytes of HAProxy's buffers: a request that is larger cannot be sent again."""
SERVE_GRPC_MESSAGE = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
"""Bytes of the largest message over gRPC, in and out; 2 GiB by default."""
SERVE_MIDDLEWARE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""`module:function` that returns the middlewares around each HTTP server of Serve, a replica's among them."""
SERVE_REPLICA_PORTS: Mapping[str, int] = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": 0,
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": 240,
    "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": 250,
    "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": 490,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 498,
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": 499,
}
"""Variables for the ports that Serve opens behind HAProxy, with their places in a server's range: of the
replicas, and of the proxy that holds requests back while there is no replica.
"""

READ_IN: Mapping[str, str] = {
    TRAIN_HEALTH_CHECK_INTERVAL: "train/v2/_internal/constants.py",
    TRAIN_PREEMPTION_WATCHER: "train/v2/_internal/constants.py",
    TRAIN_START_TIMEOUT: "train/v2/_internal/constants.py",
    WORKER_NICENESS: "core/src/ray/raylet/raylet",  # compiled, without the prefix
    JOB_CONFIG: "_private/runtime_env/constants.py",
    TUNE_LOOSE_METRICS: "tune/execution/tune_controller.py",
    JOB_STOP_WAIT: "dashboard/modules/job/job_supervisor.py",
    **dict.fromkeys(
        (
            SERVE_HAPROXY,
            SERVE_THROUGHPUT,
            SERVE_SEPARATE_ROUTER,
            SERVE_PROXY_READY,
            SERVE_DRAINING,
            SERVE_HAPROXY_LOG,
            SERVE_HAPROXY_BINARY,
            SERVE_HAPROXY_METRICS,
            SERVE_HAPROXY_RETRY_ON,
            SERVE_HAPROXY_RETRIES,
            SERVE_HAPROXY_BUFFER,
            SERVE_GRPC_MESSAGE,
            SERVE_MIDDLEWARE,
            *SERVE_HAPROXY_FILES,
            *SERVE_HAPROXY_PORTS,
            *SERVE_REPLICA_PORTS,
        ),
        "serve/_private/constants.py",
    ),
}
"""The file of Ray's package that reads or sets each variable."""
