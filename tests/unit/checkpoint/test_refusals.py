"""A disk that takes no more: what is told names the folder, the reason and the checkpoint."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raystack.checkpoint.sharded import write
from raystack.checkpoint.state import Shard
from raystack.errors import TrainingError
from raystack.refusals import refusals
from raystack.storage import Storage


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may have more than 100 KiB."""
    # Python ignores the signal that comes with it, so that a write ends with EFBIG, as with ENOSPC.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 2**10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


LARGE = torch.zeros(100_000)
WRITERS: dict[str, Callable[[Path], object]] = {
    "PyTorch's archive": lambda folder: write(folder / "state", {"model/w": Shard.whole(LARGE)}, None),
    "safetensors": lambda folder: save_file({"w": LARGE}, folder / "w"),
    "a file": lambda folder: (folder / "file").write_bytes(bytes(2**20)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_reason_is_told_whatever_a_library_makes_of_it(
    writer: str, tmp_path: Path, small_files: None
) -> None:
    with pytest.raises(TrainingError) as told, refusals("the checkpoint of step 7", str(tmp_path)):
        WRITERS[writer](tmp_path)
    assert str(told.value) == (
        f"experiment.storage: the checkpoint of step 7 cannot be written to {tmp_path}: File too large"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_is_missing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    store = Storage(str(tmp_path))
    with pytest.raises(TrainingError) as told:
        store.write("config.yaml", "a: 1")
    (problem,) = told.value.problems
    assert problem.rule == f"a file cannot be written to {tmp_path}: {os.strerror(number)}"
    assert problem.got is not None
    assert problem.got.endswith("iB free")
    assert list(tmp_path.iterdir()) == [], "nothing half written is left"
    with (
        pytest.raises(TrainingError, match=r"iB free, 3\.0 MiB needed"),
        refusals("it", "/", needed=3 * 2**20),
    ):
        full(0)


def test_of_an_object_store_the_room_is_not_known() -> None:
    with pytest.raises(TrainingError) as told, refusals("a file", "s3://bucket/runs"):
        raise OSError(errno.ENOSPC, "no space")
    assert told.value.problems[0].got is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bad sample"),
        FileNotFoundError(errno.ENOENT, "no such file", "/out/x"),
        PermissionError(errno.EACCES, "not allowed", "/secret"),
    ],
)
def test_an_error_of_the_code_that_writes_stays_its_own(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, refusals("it", "/out"):
        raise error
    assert raised.value is error
