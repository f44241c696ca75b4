"""What a driver knows of the job that it runs in. In: an environment variable that Ray sets for a job's entrypoint. Out: Submitted."""

import json
import os
from dataclasses import dataclass

VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the entrypoint of a job."""
RUN, ATTEMPT = "raystack_run", "raystack_attempt"
"""Keys of the job's metadata."""


@dataclass(frozen=True)
class Submitted:
    """What was said when the job was submitted."""

    run: str
    """Id for the run, if it is a new one."""
    attempt: int | None
    """Counted from 1; None where whoever starts the job again does not count."""


def submitted() -> Submitted | None:
    """None outside a job, and in one that raystack did not submit."""
    try:
        metadata = json.loads(os.environ.get(VARIABLE, "{}")).get("metadata") or {}
        return Submitted(metadata[RUN], int(metadata[ATTEMPT]) if ATTEMPT in metadata else None)
    except (ValueError, KeyError, AttributeError):
        return None
