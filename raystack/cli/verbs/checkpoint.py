"""`raystack checkpoint ls|verify|export URL`: checkpoints, whether they are whole, and their weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Verbose
from raystack.cli.verb import Actions, Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Verbose):
    """Options of all actions."""

    url: str = argument(
        metavar="URL",
        help="a run's folder, its checkpoints folder, or one checkpoint; a path or an fsspec URL such as s3://",
    )


@dataclass(frozen=True, kw_only=True)
class Export(Options):
    """Options of `export`."""

    out: str | None = option(
        "--out",
        help="write a model folder there and leave the checkpoint as it is",
        default=None,
        metavar="FOLDER",
    )


def ls(options: Options, terminal: "Terminal") -> None:
    """Show one line per checkpoint, from its manifest and the sizes of its files."""
    from raystack.checkpoint.report import list_checkpoints

    reports = list_checkpoints(options.url)
    terminal.checkpoints(reports)
    for problem in (problem for report in reports for problem in report.problems):
        terminal.warn(str(problem))


@dataclass(frozen=True, kw_only=True)
class Check(Options):
    """Options of `verify`."""

    key: str | None = option(
        "--key",
        help="public key in PEM: URL is then a model in the registry's storage, and its signature is checked",
        default=None,
        metavar="FILE",
    )


def verify(options: Check, terminal: "Terminal") -> None:
    """Read every file. Raises TrainingError with all damage found, ServingError for a wrong signature."""
    if options.key is not None:
        _verify_signature(options.url, options.key, terminal)
        return
    from raystack.checkpoint.report import verify_checkpoints

    reports = verify_checkpoints(options.url, terminal.reading)
    terminal.checkpoints(reports)
    if damage := [problem for report in reports for problem in report.problems]:
        raise raystack.TrainingError(damage)


def _verify_signature(url: str, key: str, terminal: "Terminal") -> None:
    from raystack.checkpoint.signing import verify_signature
    from raystack.config.sign import Verify

    folder = Path(url.removeprefix("file://")).absolute()
    verify_signature(folder, Verify(key=f"secret:file:{Path(key).absolute()}"), "--key")
    terminal.say(f"{folder}: its signature is of {key}, and every file is as it was signed")


def export(options: Export, terminal: "Terminal") -> None:
    """Write the weights of the newest good checkpoint, and show where they are."""
    from raystack.checkpoint.export import export_newest

    out = Path(options.out) if options.out is not None else None
    step, folder, skipped = export_newest(options.url, out)
    for problem in skipped:
        terminal.warn(f"{problem}; the checkpoint before it is exported")
    terminal.say(f"weights of step {step}, which serving.model takes:")
    terminal.files([folder])


VERB = Actions(
    name="checkpoint",
    help="list, check and export the checkpoints of a run",
    group="files",
    actions=(
        Verb("ls", "one line for each checkpoint", Options, ls, "files"),
        Verb(
            "verify",
            "read every file and compare its SHA-256 with the manifest, or with a signature; status 5 if"
            " anything is damaged",
            Check,
            verify,
            "files",
        ),
        Verb(
            "export",
            "write full weights in safetensors, into the checkpoint or into a folder of their own; needs no"
            " cluster",
            Export,
            export,
            "files",
        ),
    ),
)
