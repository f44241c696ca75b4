"""Commands to MLflow runs, and those of earlier runs that were left in spool files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.registry.command import (
    Command,
    Register,
    Registered,
    RejectedError,
    Run,
    Text,
    UnavailableError,
    request_of,
)
from raystack.registry.spool import claim

if TYPE_CHECKING:
    from raystack.registry.store import OpenRun


Open = Callable[[Run, "OpenRun | None"], "OpenRun"]
"""(run, the open run that it is nested in) -> its MLflow run."""


def apply(opened: "OpenRun", commands: Sequence[Command], note: Callable[[str], None]) -> Registered | None:
    """Send the commands of one request, or note why MLflow rejects them.

    Raises UnavailableError, and RejectedError if MLflow rejects the run as a whole.
    """
    (first, *_) = commands
    try:
        return opened.apply(commands)
    except RejectedError as error:
        what = (
            f"to register {first.folder} as {first.name}"
            if isinstance(first, Register)
            else f"a '{first.do}'"
        )
        if error.everything and not isinstance(first, Register | Text):
            raise
        note(f"MLflow refused {what}: {error}")
        return None


def replay(folder: Path, tracking_uri: str, open_run: Open, note: Callable[[str], None]) -> list[str]:
    """Send what earlier runs left in the folder for this tracking URI. Return notes on the files that stay.

    A file that MLflow would never accept is renamed to end in `.refused`.
    """
    stays = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with claim(path) as content:
                if content is None or content[0][0].tracking_uri != tracking_uri:
                    continue
                _send(content, open_run, note)
                path.unlink(missing_ok=True)
        except (UnavailableError, OSError) as error:
            stays.append(f"{path} could not be sent to MLflow and stays: {error}")
        except (RejectedError, ValueError) as error:
            if isinstance(error, RejectedError) and error.everything:
                stays.append(f"{path} could not be sent to MLflow and stays: {error}")
                continue
            aside = path.with_suffix(".refused")
            try:
                path.rename(aside)
                note(f"what was left of an earlier run is put aside as {aside}: {error}")
            except OSError as unmoved:
                stays.append(f"{path} is refused by MLflow ({error}) and cannot be put aside: {unmoved}")
    return stays


def _send(content: Sequence[tuple[Run, list[Command]]], open_run: Open, note: Callable[[str], None]) -> None:
    opened: dict[str, OpenRun] = {}

    def find(run: Run) -> "OpenRun":
        if run.run_id not in opened:
            opened[run.run_id] = open_run(run, find(run.nested_in()) if run.parent else None)
        return opened[run.run_id]

    for run, rest in content:
        while rest:
            request = request_of(rest)
            apply(find(run), request, note)
            rest = rest[len(request) :]
    (first, _), count = content[0], sum(len(commands) for _, commands in content)
    for refusal in dict.fromkeys(line for each in opened.values() for line in each.refusals):
        note(f"{refusal} (run {first.run_id})")
    sent = "1 command" if count == 1 else f"{count} commands"
    note(f"MLflow now has what it had not got of run {first.parent or first.run_id}: {sent}")
