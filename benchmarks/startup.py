"""How long raystack takes to answer when nothing is trained: `--help`, `--dry-run`, and what they import."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import RESULTS, machine, show, spread, write

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "examples/01_digits/config.yaml"
HEAVY = ("torch", "ray", "mlflow", "pandas", "numpy")

COMMANDS: dict[str, tuple[Sequence[str], float | None]] = {
    "python -c pass": (("-c", "pass"), None),
    "import raystack.config": (("-c", "import raystack.config"), None),
    "raystack.train --help": (("-m", "raystack.train", "--help"), 0.3),
    "raystack.train --dry-run": (("-m", "raystack.train", CONFIG, "--dry-run"), 1.0),
    "raystack.train --dry-run --json": (("-m", "raystack.train", CONFIG, "--dry-run", "--json"), 1.0),
}
"""Arguments of the interpreter, and the budget in seconds from the design; None where there is none."""

IMPORTED = """
import json, runpy, sys
kind, what, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = what
try:
    exec(what) if kind == "-c" else runpy.run_module(what, run_name="__main__")
except SystemExit:
    pass
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def main() -> int:
    """Measure, print the table, write the JSON. Status 1 if one of HEAVY was imported."""
    arguments = _parse()
    rows: dict[str, dict[str, Any]] = {}
    for name, (command, budget) in COMMANDS.items():
        _seconds(command)
        seconds = spread([_seconds(command) for _ in range(arguments.runs)])
        rows[name] = {"seconds": seconds, "budget_s": budget, "imported": _imported(command)}
    results = {
        "benchmark": "startup",
        "machine": machine("pydantic", "hydra-core"),
        "settings": {"runs": arguments.runs},
        "rows": rows,
    }
    columns = ("", "seconds", "least", "most", "budget", "", f"of {', '.join(HEAVY)}")
    show(
        f"medians of {arguments.runs} runs after one that does not count",
        columns,
        [_row(name, row) for name, row in rows.items()],
    )
    if arguments.output:
        write(arguments.output, results)
    return int(any(row["imported"] for row in rows.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="times that each command runs (10)")
    parser.add_argument("--quick", action="store_true", help="2 runs, and no file unless --output names one")
    parser.add_argument("--output", type=Path, help="JSON file to write (benchmarks/results/startup.json)")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or (2 if arguments.quick else 10)
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "startup.json"
    return arguments


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    _execute(command)
    return time.perf_counter() - started


def _imported(command: Sequence[str]) -> list[str]:
    """Those of HEAVY that the command leaves imported."""
    names = json.loads(_execute(("-c", IMPORTED, *command)).splitlines()[-1])
    return [name for name in HEAVY if name in names]


def _execute(command: Sequence[str]) -> str:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def _row(name: str, row: dict[str, Any]) -> list[str]:
    seconds, budget = row["seconds"], row["budget_s"]
    kept = "" if budget is None else "kept" if seconds["median"] <= budget else "missed"
    figures = [f"{seconds[key]:.3f}" for key in ("median", "min", "max")]
    return [
        name,
        *figures,
        "-" if budget is None else f"{budget:.1f}",
        kept,
        ", ".join(row["imported"]) or "none",
    ]


if __name__ == "__main__":
    sys.exit(main())
