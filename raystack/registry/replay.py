"""Commands to an MLflow run, and those of earlier runs that were left in spool files."""

from collections.abc import Callable
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
)
from raystack.registry.spool import claim

if TYPE_CHECKING:
    from raystack.registry.store import OpenRun


def apply(opened: "OpenRun", command: Command, note: Callable[[str], None]) -> Registered | None:
    """Send the command, or note why MLflow rejects it.

    Raises UnavailableError, and RejectedError if MLflow rejects the run as a whole.
    """
    try:
        return opened.apply(command)
    except RejectedError as error:
        what = (
            f"to register {command.folder} as {command.name}"
            if isinstance(command, Register)
            else f"a '{command.do}'"
        )
        if error.everything and not isinstance(command, Register | Text):
            raise
        note(f"MLflow refused {what}: {error}")
        return None


def replay(
    folder: Path, tracking_uri: str, open_run: "Callable[[Run], OpenRun]", note: Callable[[str], None]
) -> list[str]:
    """Send what earlier runs left in the folder for this tracking URI. Return notes on the files that stay.

    A file that MLflow would never accept is renamed to end in `.refused`.
    """
    stays = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with claim(path) as content:
                if content is None or content[0].tracking_uri != tracking_uri:
                    continue
                run, commands = content
                opened = open_run(run)
                for command in commands:
                    apply(opened, command, note)
                for refusal in opened.refusals:
                    note(f"{refusal} (run {run.run_id})")
                path.unlink(missing_ok=True)
                count = "1 command" if len(commands) == 1 else f"{len(commands)} commands"
                note(f"MLflow now has what it had not got of run {run.run_id}: {count}")
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
