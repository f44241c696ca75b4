"""What is being tried: a name, a seed and the place its runs are kept."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from raystack.config.section import Section


def _expand_home(url: str) -> str:
    """`~/x` -> an absolute path; an fsspec URL (`s3://bucket/x`) is left alone; a relative path is made absolute."""
    if re.match(r"^[a-z][a-z0-9+]*://", url):
        return url.rstrip("/")
    return str(Path(url).expanduser().absolute())


Url = Annotated[str, AfterValidator(_expand_home)]


class Experiment(Section):
    """What is being tried, and where its runs are kept."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Name of the experiment in MLflow and the first part of every run id. Lower case, digits and dashes, at most 40
    characters, because it becomes a folder, a Kubernetes name and a metric label."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, the sample order and every random number of a step. The same seed gives the same losses on any
    number of workers, to float tolerance."""

    storage: Url = "~/raystack"
    """Folder or fsspec URL that holds `runs/` and, unless `tracking.uri` says otherwise, the MLflow store. The base
    config takes it from the environment variable RAYSTACK_STORAGE where that is set. On a cluster of several nodes it
    has to be reachable from all of them."""

    tags: dict[str, str] = {}
    """Free labels that are set on the MLflow run."""
