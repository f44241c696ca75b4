"""`python -m raystack.checkpoints ls|verify|export URL`: what checkpoints there are, whether they are whole,
and their weights.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.cli.arguments import Arguments, parse

if TYPE_CHECKING:
    from raystack.checkpoint.report import Report


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("checkpoint", argv))


def run(arguments: Arguments) -> int:
    """Returns the exit status."""
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    action = {"ls": _list, "verify": _verify, "export": _export}[arguments.action]
    return guard(lambda: action(arguments), verbose=arguments.verbose)


def _list(arguments: Arguments) -> None:
    from raystack.checkpoint.locate import locate
    from raystack.checkpoint.report import glance
    from raystack.cli.terminal import warn

    store, steps = locate(arguments.url)
    reports = [glance(store, step) for step in steps]
    _show(reports, as_json=arguments.json)
    for problem in (problem for report in reports for problem in report.problems):
        warn(str(problem))


def _verify(arguments: Arguments) -> None:
    from raystack.checkpoint.locate import locate
    from raystack.checkpoint.report import glance, verify
    from raystack.cli.listing import reading
    from raystack.errors import TrainingError

    store, steps = locate(arguments.url)
    with reading(sum(glance(store, step).bytes for step in steps)) as progress:
        reports = [verify(store, step, progress) for step in steps]
    _show(reports, as_json=arguments.json)
    if damage := [problem for report in reports for problem in report.problems]:
        raise TrainingError(damage)


def _export(arguments: Arguments) -> None:
    from raystack.checkpoint import MODEL
    from raystack.checkpoint.export import export, export_to
    from raystack.checkpoint.locate import locate
    from raystack.cli.terminal import say, warn
    from raystack.errors import TrainingError

    store, steps = locate(arguments.url)
    found = store.latest_good(steps)
    if found.manifest is None:
        raise TrainingError(found.skipped)
    for problem in found.skipped:
        warn(f"{problem}; the checkpoint before it is exported")
    if arguments.out is None:
        export(store, found.manifest)
    else:
        export_to(store, found.manifest, Path(arguments.out))
    say(f"weights of step {found.manifest.step}, which serving.model takes:")
    sys.stdout.write(f"{arguments.out or f'{store.folder(found.manifest.step)}/{MODEL}'}\n")


def _show(reports: "Sequence[Report]", *, as_json: bool) -> None:
    from raystack.cli.listing import show_json, show_table

    if as_json:
        show_json([report.as_dict() for report in reports])
    else:
        show_table([_words(report) for report in reports])


def _words(report: "Report") -> dict[str, str]:
    """A line of the table."""
    from raystack.cli.listing import size

    manifest = report.manifest
    if manifest is None:
        known = dict.fromkeys(("samples", "epoch", "workers", "strategy", "size", "weights", "metrics"), "-")
    else:
        known = {
            "samples": f"{manifest.samples:,}",
            "epoch": f"{manifest.samples / manifest.dataset_length:.2f}" if manifest.dataset_length else "",
            "workers": str(manifest.world_size),
            "strategy": manifest.strategy,
            "size": size(report.bytes),
            "weights": "yes" if report.weights else "no",
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items()) or "-",
        }
    return {"step": str(report.step), "state": report.state, **known}


if __name__ == "__main__":
    sys.exit(main())
