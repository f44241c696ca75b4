"""Where the weights are that a run begins with, settled by its driver and recorded in its folder.

An alias may point to another version later, and only the driver can ask MLflow. So what the config's source
meant when the run began stands in `init_from.json`: for the workers, for retries, and for `--resume`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from raystack.storage import Storage

FILE = "init_from.json"


@dataclass(frozen=True)
class Origin:
    """A source of weights, as every worker can read it."""

    name: str
    """What it is called: `models:/name/version`, or the folder or URL."""
    place: str
    """Absolute folder or URL of a checkpoint, a run or a model."""


def write_origins(folder: str, origins: Mapping[str, Origin]) -> None:
    """Record origins, by the source in the config, in the folder of a run."""
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    storage.write(FILE, json.dumps({source: asdict(origin) for source, origin in origins.items()}, indent=2))


def read_origins(folder: str) -> dict[str, Origin]:
    """Return what was recorded in the folder of a run; nothing if there is no record."""
    try:
        values = json.loads(Storage(folder).read(FILE))
    except FileNotFoundError:
        return {}
    return {source: Origin(**origin) for source, origin in values.items()}
