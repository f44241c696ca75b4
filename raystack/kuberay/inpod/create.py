"""Create an object: `python -m raystack.kuberay.inpod.create FILE NAME`.

Creates the object in a YAML file under the name NAME in the pod's own namespace. A CronJob runs it if a
queue's labels have to reach the RayJobs of a schedule.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from raystack.errors import RaystackError
from raystack.kuberay.api.client import Client


def main(argv: Sequence[str] | None = None) -> int:
    """Create the object and return the exit status."""
    file, name = sys.argv[1:] if argv is None else argv
    try:
        found = create(Path(file), name)
    except RaystackError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"{found['kind'].lower()}/{name} is created\n")
    return 0


def create(file: Path, name: str) -> dict[str, Any]:
    """Create the object under this name and return it. Raises LaunchError if it is rejected."""
    wanted: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    # The name is that of the CronJob's Job, so a retried pod does not create a second object.
    wanted["metadata"]["name"] = name
    return Client(namespace=wanted["metadata"]["namespace"]).apply(wanted)


if __name__ == "__main__":
    sys.exit(main())
