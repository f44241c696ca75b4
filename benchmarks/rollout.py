"""Versions that are rolled out on a Ray Serve of this machine, while requests come at a steady rate.

`lasting`: rollouts 0 -> 5 -> 50 -> 100 %, updates in place, 1 -> 3 -> 1 replicas, and SIGKILL for a replica,
for Serve's controller and for the rollout's process, again and again: failed requests, shares, moved keys.
`faults`: seconds from the first bad answer that a client got to the last answer of a bad version.
`equal`: rollouts of a version that is as good as the other, and how many of them went back.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from asking import SERVERS
from figures import machine, parse, parser, show, spread, write
from running import workplace
from servers.faulty import Faulty

from raystack import Experiment
from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.config.target import Local
from raystack.launch.local import cluster
from raystack.plan import plan_serving
from raystack.rollout.actor import NAMESPACE, actor_name
from raystack.rollout.state import State

NAME = "rolled"
PARTS = ("lasting", "faults", "equal")
FAULTS: dict[str, dict[str, float]] = {
    "fails": {"fails": 0.5},
    "slow": {"slow_s": 0.1},
    "wrong": {"wrong": 0.5},
}
SLOW_S = 0.1
"""An answer of the slow version takes at least so long."""
CONNECTIONS = 8
STICKY = "+rollout.sticky.header=x-user"
OVER_S = 300.0
"""Seconds that a rollout may take."""
SETTLES_S = 1.0
"""Seconds after a change of the weights whose requests are not counted."""
DEVIATIONS = 4.0
"""Standard deviations of the binomial distribution that a share may be off: one share in 16,000 is beyond."""


@dataclass(frozen=True)
class Service:
    """A model that is served, with versions that can take its place."""

    folder: Path
    address: str
    port: int
    per_s: float
    versions: dict[str, str]

    def experiment(self, stable: str, *overrides: str) -> Experiment:
        """The config of the service, with a version served."""
        own = [f"serving.model={self.versions[stable]}", f"serving.name={NAME}", f"serving.port={self.port}"]
        own += [
            "resources.wait_s=240",
            "serving.cpus_per_replica=0.25",
            "tracking=off",
            f"target.address={self.address}",
        ]
        own += [f"experiment.storage={self.folder / 'storage'}"]
        return Experiment(SERVERS / "config.yaml", *own, *overrides)

    def deploy(self, stable: str, *overrides: str) -> str:
        """Serve a version, in place of another one if there is one; return the model's URL."""
        from raystack.serving.deploy import deploy

        return deploy(plan_serving(self.experiment(stable, *overrides).config)).links["url"]

    def rollout(self, stable: str, new: str, steps: str, *overrides: str) -> Experiment:
        """The config of a rollout."""
        own = [f"+rollout.model={self.versions[new]}", f"+rollout.steps={steps}"]
        return self.experiment(stable, *own, *overrides)


@dataclass(frozen=True)
class Span:
    """A time in which the new version had one weight."""

    rollout: str
    weight: float
    begin: float
    end: float


def main() -> None:
    """Measure, show, write."""
    options = parser(__doc__, "rollout", "a short time and few runs")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--minutes", type=float, help="of `lasting`, at least (10)")
    options.add_argument("--rounds", type=int, help="of `faults` (3)")
    options.add_argument("--runs", type=int, help="of `equal` (20)")
    options.add_argument("--per-s", type=float, help="requests per second (100)")
    full = {"minutes": 10.0, "rounds": 3, "runs": 20, "per_s": 100.0}
    arguments = parse(options, "rollout", full, {"minutes": 0.5, "rounds": 1, "runs": 1, "per_s": 60.0})
    with workplace() as folder, cluster(Local(), verbose=False, cpus=4):
        import ray

        address = str(ray.get_runtime_context().gcs_address)
        service = Service(folder, address, _port(), arguments.per_s, _versions(folder))
        settings = {"per_s": arguments.per_s, "connections": CONNECTIONS}
        found: dict[str, Any] = {
            "benchmark": "rollout",
            "machine": machine("ray", "raystack-ml"),
            "settings": settings,
        }
        url = service.deploy("one")
        if "lasting" in arguments.parts:
            found["lasting"] = lasting(service, url, arguments.minutes, quick=arguments.quick)
        service.deploy("one")
        if "faults" in arguments.parts:
            found["faults"] = {name: faulty(service, url, name, arguments.rounds) for name in FAULTS}
        if "equal" in arguments.parts:
            found["equal"] = equal(service, url, arguments.runs)
    _show(found)
    if arguments.output is not None:
        write(arguments.output, found)


def lasting(service: Service, url: str, minutes: float, *, quick: bool) -> dict[str, Any]:
    """Go through all changes, again and again, until the time is over."""
    spans: list[Span] = []
    events: Counter[str] = Counter()
    step_s, rest_s = (5, 4) if quick else (30, 10)
    first = (
        f"[{{weight: 0, min_requests: 0, min_s: 3}}, {{weight: 0.05, min_s: {step_s}, min_requests: 20}}, "
        f"{{weight: 0.5, min_s: {step_s}, pause: true}}, {{weight: 1.0, min_s: 5}}]"
    )
    second = first.replace(", pause: true", "")

    def rolled_with_kills() -> None:
        def in_step(state: State) -> None:
            if state.paused_by != "step":
                return
            for name, kill in kills.items():
                kill()
                events[name] += 1
                time.sleep(rest_s)
            handle.order("resume", who="benchmark")

        kills: dict[str, Callable[[], None]] = {
            "rollout's process killed": lambda: _kill_actor(actor_name(NAME), NAMESPACE),
            "Serve's controller killed": lambda: _kill_actor("SERVE_CONTROLLER_ACTOR", "serve"),
            "replica killed in a rollout": _kill_replica,
        }
        handle = service.rollout("one", "two", first, STICKY).start_rollout()
        _follow(handle, spans, in_step)
        events["rollout 0 -> 5 -> 50 -> 100 %"] += 1

    def in_place() -> None:
        service.deploy("one", "serving.replicas=1")
        events["update in place"] += 1

    def replica_killed() -> None:
        _kill_replica()
        events["replica killed"] += 1
        time.sleep(rest_s)

    def rolled_with_three() -> None:
        service.deploy("one", "serving.replicas=3")
        events["1 -> 3 replicas"] += 1
        handle = service.rollout("one", "two", second, STICKY, "serving.replicas=3").start_rollout()
        _follow(handle, spans, lambda state: None)
        events["rollout with 3 replicas"] += 1

    def one_again() -> None:
        service.deploy("two", "serving.replicas=1")
        events["3 -> 1 replicas"] += 1
        time.sleep(3)
        service.deploy("one", "serving.replicas=1")
        events["update in place"] += 1

    until = time.monotonic() + 60 * minutes
    with _load(service, url) as rows:
        while time.monotonic() < until:
            for change in (rolled_with_kills, in_place, replica_killed, rolled_with_three, one_again):
                change()
                time.sleep(2)
    return {
        "seconds": rows[-1]["answered"] - rows[0]["sent"],
        "requests": len(rows),
        "failed": dict(Counter(row["error"] for row in rows if "error" in row)),
        "wrong": sum(not row["right"] for row in rows if "error" not in row),
        "versions": dict(Counter(row["version"] for row in rows if "error" not in row)),
        "events": dict(events),
        "shares": [_share(rows, span) for span in spans],
        "keys": len({row["key"] for row in rows} - {None}),
        "keys_moved": _moved(rows, spans),
    }


def faulty(service: Service, url: str, fault: str, rounds: int) -> dict[str, Any]:
    """Roll out a bad version some times."""
    steps = "[{weight: 0.2, min_requests: 1000, min_s: 60}, {weight: 1.0}]"
    seconds, bad_answers, statuses, reactions = [], [], [], []
    for _ in range(rounds):
        with _load(service, url) as rows:
            time.sleep(1)
            experiment = service.rollout("one", fault, steps, "+rollout.analysis.difference.share=0.01")
            state = _follow(experiment.start_rollout(), [], lambda state: None)
            time.sleep(1)
        bad = [row["answered"] for row in rows if _bad(row)]
        last = max(row["answered"] for row in rows if "error" in row or row["version"] != "1")
        seconds.append(last - min(bad))
        bad_answers.append(len(bad))
        statuses.append(f"{state.status}: {state.cause}")
        reactions.append(state.reaction_s)
    return {
        "seconds": spread(seconds),
        "bad_answers": bad_answers,
        "reaction_s": reactions,
        "ended": statuses,
    }


def equal(service: Service, url: str, runs: int) -> dict[str, Any]:
    """Roll out an equal version some times, and back."""
    steps = "[{weight: 0.1, min_requests: 50, min_s: 4}, {weight: 0.5, min_s: 4}, {weight: 1.0, min_s: 2}]"
    ended: Counter[str] = Counter()
    took = []
    with _load(service, url) as rows:
        for run in range(runs):
            stable, new = ("one", "two") if run % 2 == 0 else ("two", "one")
            began = time.monotonic()
            experiment = service.rollout(stable, new, steps, "+rollout.analysis.difference.share=0.01")
            state = _follow(experiment.start_rollout(), [], lambda state: None)
            took.append(time.monotonic() - began)
            ended[state.status if state.status == "finished" else f"{state.status}: {state.cause}"] += 1
    failed = dict(Counter(row["error"] for row in rows if "error" in row))
    return {
        "runs": runs,
        "ended": dict(ended),
        "seconds": spread(took),
        "requests": len(rows),
        "failed": failed,
    }


def _bad(row: dict[str, Any]) -> bool:
    if "error" in row:
        return True
    late = row["version"] != "1" and row["answered"] - row["sent"] >= SLOW_S
    return late or not row["right"]


def _follow(handle: Any, spans: list[Span], also: Callable[[State], None]) -> State:
    """Wait until a rollout is over; note its weights. Returns how it ended."""
    until, span = time.monotonic() + OVER_S, None
    for state in handle.watch(0.2):
        if time.monotonic() > until:
            raise SystemExit(f"the rollout takes longer than {OVER_S:g} s: {state}")
        if state.doing == "watch" and state.since and not state.over:
            if span is None or span.begin != state.since:
                span = Span(handle.id, state.weight, state.since, time.time())
                spans.append(span)
            span = spans[-1] = Span(handle.id, state.weight, state.since, time.time() - 0.2)
        also(state)
    final: State = state
    return final


def _share(rows: Sequence[dict[str, Any]], span: Span) -> dict[str, Any]:
    """The part of the requests without a key that the new version answered, and how far off it is."""
    found = Counter(
        row["version"]
        for row in rows
        if row["key"] is None and row["sent"] > span.begin + SETTLES_S and row["answered"] < span.end
        if "error" not in row
    )
    total = found.total()
    deviation = math.sqrt(total * span.weight * (1 - span.weight))
    off = found["2"] - total * span.weight
    return {
        "weight": span.weight,
        "requests": total,
        "share": found["2"] / total if total else math.nan,
        "deviations": off / deviation if deviation else off,
    }


def _moved(rows: Sequence[dict[str, Any]], spans: Sequence[Span]) -> int:
    """Requests whose key had been answered by the new version before, in the same rollout."""
    moved = 0
    for rollout in {span.rollout: None for span in spans}:
        own = [span for span in spans if span.rollout == rollout]
        begin, end = own[0].begin, own[-1].end
        since: dict[str, float] = {}
        for row in sorted(rows, key=lambda row: float(row["sent"])):
            if row["key"] is None or "error" in row or not begin < row["sent"] < end:
                continue
            if row["version"] == "2":
                since[row["key"]] = min(since.get(row["key"], math.inf), row["answered"])
            elif row["sent"] > since.get(row["key"], math.inf):
                moved += 1
    return moved


@contextmanager
def _load(service: Service, url: str) -> Iterator[list[dict[str, Any]]]:
    """Requests for the time of the block; their rows are there after it."""
    file = service.folder / f"load-{time.time_ns()}.jsonl"
    rows: list[dict[str, Any]] = []
    words = [f"{url}/infer", str(service.per_s), str(CONNECTIONS), str(file)]
    script = [sys.executable, str(SERVERS / "steady_load.py"), *words]
    process = subprocess.Popen(script, stdin=subprocess.PIPE)
    try:
        yield rows
        assert process.stdin is not None
        process.stdin.close()
        process.wait(150)
        rows += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    finally:
        process.kill()
        process.wait()


def _kill_replica() -> None:
    """SIGKILL for a replica of the version that is served."""
    import ray

    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::{NAME}#"):
            _kill_actor(actor["name"], actor["namespace"])
            return
    raise SystemExit("there is no such replica")


def _kill_actor(name: str, namespace: str) -> None:
    import ray

    actor = ray.get_actor(name, namespace=namespace)
    process: Any = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=30)
    os.kill(process, signal.SIGKILL)


def _versions(folder: Path) -> dict[str, str]:
    """Write all versions; return their folders by name."""
    found, faults = {}, {"one": {}, "two": {}, **FAULTS}
    for step, (name, arguments) in enumerate(faults.items(), 1):
        files = folder / "versions" / name
        files.mkdir(parents=True)
        card = ModelSpec(
            "faulty:Faulty", arguments, Faulty.signature, run_id=f"{NAME}-{step}", step=step, metrics={}
        )
        write_spec(files, card, pack(SERVERS))
        write_weights(files, torch.nn.Linear(2, 1).state_dict())
        found[name] = str(files)
    return found


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _seconds(found: dict[str, float]) -> list[str]:
    return [f"{found[key]:.1f}" for key in ("median", "min", "max")]


def _show(found: dict[str, Any]) -> None:
    if lasted := found.get("lasting"):
        rows = [[name, f"{times:,}"] for name, times in lasted["events"].items()]
        rows += [["requests", f"{lasted['requests']:,}"], ["seconds", f"{lasted['seconds']:.0f}"]]
        rows += [["failed", str(lasted["failed"] or 0)], ["wrong", str(lasted["wrong"])]]
        rows += [["keys", str(lasted["keys"])], ["requests whose key had moved", str(lasted["keys_moved"])]]
        show("lasting", ("", "times"), rows)
        shares = [
            [f"{row['weight']:g}", f"{row['requests']:,}", f"{row['share']:.4f}", f"{row['deviations']:+.2f}"]
            for row in lasted["shares"]
        ]
        show("shares", ("weight", "requests", "share", "standard deviations off"), shares)
    if faults := found.get("faults"):
        rows = [
            [
                name,
                *(f"{row['seconds'][key]:.1f}" for key in ("median", "min", "max")),
                str(row["bad_answers"]),
            ]
            for name, row in faults.items()
        ]
        show("s from the first bad answer", ("version", "median", "least", "most", "bad answers"), rows)
    if runs := found.get("equal"):
        rows = [[name, str(times)] for name, times in runs["ended"].items()]
        rows += [["requests", f"{runs['requests']:,}"], ["failed", str(runs["failed"] or 0)]]
        show(f"{runs['runs']} rollouts of an equal version", ("ended", "times"), rows)


if __name__ == "__main__":
    main()
