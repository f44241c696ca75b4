"""Every command in the README, the docs and the examples' pages does what it says, shortened but otherwise as
written.

Here are those that train on workers; test_readme.py has the README's, tests/contract others, and tests/kube
what is said to Kubernetes.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from pages import (
    CHECKPOINT,
    ROOT,
    SHORT,
    SUBMIT,
    TRAIN,
    alone,
    check_trained,
    commands,
    on_kubernetes,
    shortened,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ELSEWHERE = ("make ", "source ", "export ", "pip ", "helm ", "docker ")
"""Commands that are run otherwise: by whoever runs these tests, by continuous integration, by nobody without
a cluster.
"""


README = set(commands([ROOT / "README.md"]))


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize(
    "command", [command for command in TRAIN if not alone(command) and command not in README]
)
def test_a_training_command_ends_with_where_everything_is(
    command: str, ray_cluster: str, tiny_llama: Path
) -> None:
    done = subprocess.run(
        shortened(command),
        cwd=ROOT,
        env=environment(ray_cluster),
        capture_output=True,
        text=True,
        timeout=200,
    )
    check_trained(command, done)


def test_no_command_is_left_out() -> None:
    submitted = [
        command.replace(" config.yaml", " examples/01_digits/config.yaml training.epochs=1")
        for command in SUBMIT
    ]
    assert set(submitted) <= README
    run = {*README, *TRAIN, *CHECKPOINT, *SUBMIT}
    rest = {
        command
        for command in commands()
        if command not in run and "make_model" not in command and not on_kubernetes(command)
    }
    # tests/contract has the schema, tests/unit/checkpoint the checkpoints in a bucket, tests/kube all of
    # Kubernetes.
    known = ("python -m raystack schema", *ELSEWHERE)
    assert not [command for command in rest if not command.startswith(known)]
    trained = {name for command in TRAIN for name in re.findall(r"examples/(\w+)/", command)}
    assert trained == set(SHORT)
