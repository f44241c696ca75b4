"""The experiment section: a name, a seed and the storage of its runs."""

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from raystack.config.names import TagName, TagValue
from raystack.config.secret import no_password
from raystack.config.section import Pattern, Section, Text


def _place(url: str) -> str:
    """Return `~/x`, `x` and `file:///x` as an absolute path, other fsspec URLs (`s3://bucket/x`) as URLs."""
    match re.fullmatch(r"([A-Za-z][A-Za-z0-9+]*)://(.*?)/*", url):
        case re.Match() as parts if parts[1].lower() == "file":
            url = f"/{parts[2].lstrip('/')}"
        case re.Match() as parts:
            if not parts[2]:
                raise ValueError("should name a bucket or host after ://")
            return f"{parts[1].lower()}://{no_password(url).split('://', 1)[1].rstrip('/')}"
    path = os.path.expanduser(url)
    if not path:
        raise ValueError("should be a folder or an fsspec URL")
    if path.startswith("~"):
        whose = (
            "there is no home folder: set it or RAYSTACK_STORAGE"
            if path.startswith("~/")
            else "there is no such home folder"
        )
        raise ValueError(f"should be a folder, and {whose}")
    return os.path.abspath(path)


Url = Annotated[Text, AfterValidator(_place)]

_NAME = "should be 1 to 40 lower case letters, digits and dashes, with no dash at either end"


class Experiment(Section):
    """Name, seed and storage of an experiment."""

    name: Annotated[str, Pattern(r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", _NAME)]
    """Name of the experiment in MLflow and the first part of every run id. Lower case, digits and dashes, at
    most 40 characters, because it becomes a folder, a Kubernetes name and a metric label.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, the sample order, and the random numbers of torch, NumPy and Python in samples and
    steps. The same seed gives the same losses on any number of workers, to float tolerance, if a step draws
    no numbers itself: dropout's depend on the worker.
    """

    storage: Url = "~/raystack"
    """Folder or fsspec URL that holds `runs/` and, unless `tracking.uri` says otherwise, the MLflow store.
    The base config reads it from the environment variable RAYSTACK_STORAGE if that is set. On a cluster of
    several nodes it has to be reachable from all of them.
    """

    resume: Literal["never", "auto"] | None = None
    """Run that a start resumes. Not set: the attempts of one job (retries, a lost head, suspend and resume,
    preemption) resume its run, and a new submission starts a new run; `--resume` selects another one. `auto`:
    a new submission also resumes the newest unfinished run of the same config. `never`: each attempt of a job
    starts a new run.
    """

    tags: dict[TagName, TagValue] = Field(default={})
    """Custom tags of the MLflow run."""
