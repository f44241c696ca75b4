"""Every command in the README, the docs and the examples' pages does what it says, shortened but otherwise as
written.

Here are those that train on workers; test_readme.py has the README's, tests/contract others, and tests/kube
what is said to Kubernetes.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from pages import (
    CANARY,
    CHECKPOINT,
    ROOT,
    SHORT,
    SUBMIT,
    TRAIN,
    TUNE,
    alone,
    check_trained,
    commands,
    on_kubernetes,
    shortened,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WITH_VLLM = ("python -m raystack.serve config.yaml", "python -m raystack.serve examples/03")
"""What docs/llm.md says: test_llm.py does it."""
ELSEWHERE = ("make ", "source ", "export ", "pip ", "helm ", "docker ", *WITH_VLLM)
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


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_the_page_of_tuning_leads_from_a_search_to_a_trained_model(tmp_path: Path) -> None:
    shown = {}
    for command in [*TUNE, "raystack tune ls"]:
        words = shlex.split(command.replace("examples/", f"{ROOT}/examples/"))
        if re.search(r"raystack\.(tune|train)", command):
            trials = [f"tuning.trials={3 if '--resume' in command else 2}"] if "tune " in command else []
            words += ["training.epochs=1", *trials]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env={**os.environ, "RAYSTACK_STORAGE": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        shown[command] = done.stdout
    (first, *_), listed = shown.values(), shown["raystack tune ls"]
    assert re.search(r"^version +models:/digits-tuned/1$", first, re.MULTILINE)
    assert re.findall(r"^(\S+) +finished", listed, re.MULTILINE) == [
        "digits-pbt",
        "digits-random",
        "digits-tuned",
    ]
    assert re.search(r"^digits-tuned +finished +3 ", listed, re.MULTILINE)


def test_no_command_is_left_out() -> None:
    submitted = [
        command.replace(" config.yaml", " examples/01_digits/config.yaml training.epochs=1")
        for command in SUBMIT
    ]
    assert set(submitted) <= README
    named = {re.sub(r"digits-tuned", "NAME", command) for command in TUNE} | {"raystack tune ls"}
    run = {*README, *TRAIN, *TUNE, *named, *CHECKPOINT, *SUBMIT, *CANARY}
    rest = {
        command
        for command in commands()
        if command not in run and "make_model" not in command and not on_kubernetes(command)
    }
    # tests/contract has the schema, tests/unit/checkpoint the checkpoints in a bucket, test_spent.py the
    # costs, tests/kube all of Kubernetes.
    known = ("python -m raystack schema", "raystack costs", *ELSEWHERE)
    assert not [command for command in rest if not command.startswith(known)]
    trained = {name for command in TRAIN for name in re.findall(r"examples/(\w+)/", command)}
    assert trained == set(SHORT)
