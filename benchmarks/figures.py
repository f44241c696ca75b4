"""What every benchmark needs: its options, the machine it ran on, the spread of repeated figures, a plain
table, a JSON file beside it.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def parser(description: str | None, name: str, quick: str) -> argparse.ArgumentParser:
    """The options that every benchmark has. `quick`: what --quick does."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--quick", action="store_true", help=f"{quick}, and no file unless --output names one"
    )
    result.add_argument("--output", type=Path, help=f"JSON file to write (benchmarks/results/{name}.json)")
    return result


def parse(
    options: argparse.ArgumentParser, name: str, full: Mapping[str, Any], quick: Mapping[str, Any]
) -> argparse.Namespace:
    """The arguments of the command line; what was left out is as `full` or, with --quick, as `quick`
    has it.
    """
    arguments = options.parse_args()
    for key, value in (quick if arguments.quick else full).items():
        if getattr(arguments, key, None) is None:
            setattr(arguments, key, value)
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / f"{name}.json"
    return arguments


def machine(*packages: str) -> dict[str, Any]:
    """Facts that a figure depends on: cores this process may use, processor, Python, and the versions of
    `packages`.
    """
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of `values`, which are not empty."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(line[index]) for line in (columns, *rows)) for index in range(len(columns))]
    print(f"\n{title}")
    for line in (columns, *rows):
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]))


def write(path: Path, values: Any) -> None:
    """Write `values` as JSON, with six significant digits at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(values), indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {os.path.relpath(path)}")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    names = (
        [line for line in information.read_text().splitlines() if line.startswith("model name")]
        if information.is_file()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
