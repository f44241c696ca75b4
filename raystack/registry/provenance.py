"""Where a run comes from, in the words that MLflow's pages show: user, source, git, and datasets.

Git is asked by its command, for a time only; what is not there is left out.
"""

import getpass
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from raystack import job_context
from raystack.checkpoint.evaluation import read_evaluation
from raystack.config import RunConfig
from raystack.registry.command import Data

GIT_S = 5.0
"""Seconds that a command of git may take."""
DIFF_BYTES = 1_000_000
"""Largest diff that is kept; of a larger one the beginning."""
DIGEST = 36
"""Characters of a dataset's digest in MLflow."""

FOLDER_TAG, KIND_TAG = "raystack.folder", "raystack.kind"


def source_tags(config: RunConfig, kind: str, folder: str) -> dict[str, str]:
    """Return tags of a run of a kind, such as `train`, whose files are in `folder`."""
    tags = {
        "mlflow.source.name": config.task.entry,
        "mlflow.source.type": "LOCAL" if job_context.submitted() is None else "JOB",
        FOLDER_TAG: folder,
        KIND_TAG: kind,
    }
    with suppress(KeyError, OSError):  # the user of a container may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags | dict(_git_tags(config))


def working_diff(config: RunConfig) -> str | None:
    """Return what the task's files differ in from their last commit; None without a difference.

    Files that git does not know are never in it.
    """
    diff = _git(config, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", ".")
    if not diff or len(diff) <= DIFF_BYTES:
        return diff or None
    return f"{diff[:DIFF_BYTES]}\n(cut off after {DIFF_BYTES:,} of {len(diff):,} characters)\n"


def datasets(config: RunConfig, model: Path) -> tuple[Data, ...]:
    """Return the datasets that the model in a folder was trained and evaluated on, as far as is known.

    The digest of the training data is that of what makes it, the task and its arguments.
    """
    from raystack.checkpoint.statistics import read_statistics  # needs NumPy, which --dry-run does without

    made = json.dumps([config.task.entry, dict(config.task.args)], sort_keys=True, default=str)
    source = json.dumps({"task": config.task.entry})
    found = [
        Data(name=f"{config.task.entry} train_data", digest=_short(made), source=source, context="train")
    ]
    for prefix, each in read_evaluation(model).items():
        name = f"{config.task.entry} {prefix.removeprefix('eval/').strip('/') or 'eval_data'}"
        profile = json.dumps({"samples": each.samples})
        digest = each.fingerprint[:DIGEST]
        found.append(Data(name=name, digest=digest, source=source, context="eval", profile=profile))
    statistics = read_statistics(model)
    if statistics is not None and len(found) == 1 and statistics.source != "train_data":
        inputs = {name: [asdict(each) for each in of] for name, of in statistics.inputs.items()}
        digest = _short(json.dumps(inputs, sort_keys=True, default=str))
        profile = json.dumps({"samples": statistics.samples})
        name = f"{config.task.entry} {statistics.source}"
        found.append(Data(name=name, digest=digest, source=source, context="eval", profile=profile))
    return tuple(found)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def _git_tags(config: RunConfig) -> Iterator[tuple[str, str]]:
    commit = _git(config, "rev-parse", "HEAD")
    if not commit:
        return
    yield "mlflow.source.git.commit", commit.strip()
    branch = _git(config, "rev-parse", "--abbrev-ref", "HEAD")
    if branch and branch.strip() != "HEAD":  # that is no branch
        yield "mlflow.source.git.branch", branch.strip()
    if url := _git(config, "config", "--get", "remote.origin.url"):
        yield "mlflow.source.git.repoURL", re.sub(r"^(\w+://)[^/@]*@", r"\1", url.strip())


def _git(config: RunConfig, *words: str) -> str | None:
    """Return what a command of git says of the task's folder; None if it fails."""
    folder = config.task.folder
    if folder is None:
        return None
    command = ["git", "-C", folder, *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
