"""How long a config takes to become manifests, after start-up: load, plan, render and YAML, for every config
of examples/05_kubernetes.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from figures import machine, parse, parser, show, spread, write

from raystack.code.bundle import bundle
from raystack.config import load
from raystack.kuberay.manifest import render, to_yaml
from raystack.plan import plan_kuberay

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "05_kubernetes"
FORMS: dict[str, Any] = {"cron": "cron", "service": "service"}
"""By the config's name; the others are jobs."""
BUDGET_S = 0.3
STEPS = ("load", "plan", "bundle", "render", "yaml", "pyyaml")
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
HEAVY = ("ray", "torch", "mlflow", "kubernetes", "pandas", "numpy")


def main() -> int:
    """Measure, print the table, write the JSON. Status 1 if something took longer than the budget, or
    something heavy was imported.
    """
    arguments = _parse()
    rows = {file.stem: _measure(file, arguments.rounds) for file in sorted(EXAMPLES.glob("*.yaml"))}
    imported = [name for name in HEAVY if name in sys.modules]
    columns = (
        "",
        "bytes",
        "load, ms",
        "plan, ms",
        "code, ms",
        "render, ms",
        "YAML, ms",
        "plan to YAML, ms",
        "most",
        "PyYAML, ms",
    )
    show(
        f"medians of {arguments.rounds} rounds after one that does not count",
        columns,
        [_row(name, row) for name, row in rows.items()],
    )
    over = [name for name, row in rows.items() if row["all_s"]["max"] > BUDGET_S]
    kept = f"missed by {', '.join(over)}" if over else "kept"
    print(
        f"\nbudget {BUDGET_S} s: {kept}; of {', '.join(HEAVY)} are imported: {', '.join(imported) or 'none'}"
    )
    settings = {"rounds": arguments.rounds}
    found = {
        "benchmark": "render",
        "machine": machine("pydantic", "hydra-core", "PyYAML"),
        "settings": settings,
        "budget_s": BUDGET_S,
    }
    if arguments.output:
        write(arguments.output, {**found, "imported": imported, "rows": rows})
    return int(bool(over or imported))


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "render", "3 rounds")
    options.add_argument("--rounds", type=int, help="times that each config is rendered (30)")
    return parse(options, "render", {"rounds": 30}, {"rounds": 3})


def _measure(file: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each step; beside them what PyYAML alone takes to write the same manifests."""
    found: dict[str, list[float]] = {name: [] for name in (*STEPS, "all")}
    text = ""
    for round_ in range(rounds + 1):
        seconds: dict[str, float] = {}
        with _timed(seconds, "load"):
            config = load(file)
        with _timed(seconds, "plan"):
            plan = plan_kuberay(config, "digits-20261123-094500-3f9a", FORMS.get(file.stem, "job"))
        with _timed(seconds, "bundle"):
            code = bundle(config)
        with _timed(seconds, "render"):
            manifests = render(plan, code)
        with _timed(seconds, "yaml"):
            text = to_yaml(manifests)
        with _timed(seconds, "pyyaml"):
            yaml.dump_all(manifests, Dumper=DUMPER, sort_keys=False)
        seconds["all"] = sum(seconds[name] for name in ("plan", "bundle", "render", "yaml"))
        for name, value in seconds.items() if round_ else ():
            found[name].append(value)
    return {"bytes": len(text.encode()), **{f"{name}_s": spread(values) for name, values in found.items()}}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _row(name: str, row: dict[str, Any]) -> list[str]:
    medians = [
        f"{row[f'{step}_s']['median'] * 1000:.2f}"
        for step in ("load", "plan", "bundle", "render", "yaml", "all")
    ]
    return [
        name,
        f"{row['bytes']:,}",
        *medians,
        f"{row['all_s']['max'] * 1000:.2f}",
        f"{row['pyyaml_s']['median'] * 1000:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
