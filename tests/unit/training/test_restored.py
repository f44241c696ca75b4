"""The keyword `restored` of `model`: a pretrained file is read when a run begins, and never again."""

from pathlib import Path

import pytest
import torch
from begun.task import Net
from begun_workers import lines, losses, model_of, planned, run

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.export import export_to
from raystack.serving.predictor import Predictor
from raystack.serving.pyfunc import _load_pyfunc

pytestmark = pytest.mark.slow


def asked(storage: Path) -> list[bool]:
    return [line["restored"] for line in lines(storage, "model")]


def test_a_pretrained_file_is_read_when_a_run_begins_and_never_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    file = tmp_path / "pretrained.pt"
    torch.save(Net(4).state_dict(), file)
    pretrained = f"task.args.pretrained={file}"
    run(tmp_path, pretrained, "training.epochs=1")
    # The export reads back what it wrote, and the statistics of the outputs do.
    assert asked(tmp_path) == [False, True, True]

    file.unlink()
    assert sorted(losses(run(tmp_path, pretrained, "training.epochs=2"))) == [6, 7, 8, 9, 10]
    assert asked(tmp_path)[3:] == [True, True, True]

    store = CheckpointStore(planned(tmp_path).paths.checkpoints)
    ids = {"ids": torch.ones(2, 3, dtype=torch.int64)}
    expected = model_of(tmp_path)(ids["ids"])
    manifest = store.manifests()[-1]
    with store.fetch(10, MODEL) as folder:
        for answer in (Predictor.read(folder).predict(ids)["y"], _load_pyfunc(str(folder), {}).predict(ids)):
            assert torch.equal(torch.as_tensor(answer), expected)
    export_to(store, manifest, tmp_path / "out")
    assert all(asked(tmp_path)[3:])
