"""Statistics of a finished run's data: which data, how much of it, and what the task may do meanwhile."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
import torch
from torch import nn

from raystack.config.data import Data
from raystack.task import Signature, Task, TensorSpec
from raystack.training import data_statistics as module
from raystack.training.data_statistics import Source, data_statistics

ROW = Signature((TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("y", "float32", (-1,)),))


class Asked:
    """A task with just what is asked of one here."""

    def __init__(self, signature: Signature = ROW) -> None:
        self.signature = signature
        self.sizes: list[int] = []

    def predict(self, model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        x = inputs["x"]
        self.sizes.append(len(x))
        x.add_(100.0)
        return {"y": x.sum(1)}


class Rows:
    """Samples (x, label), x being the sample's number, twice."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.full((2,), float(index)), "label": index}


class Stream(Rows):
    """The same, one after the other."""

    __getitem__ = None  # type: ignore[assignment]

    def stream(self, start: int) -> Iterator[dict[str, Any]]:
        return (Rows.__getitem__(self, index) for index in range(start, self.length))


def describe(task: Asked, *datasets: Any, model: nn.Module | None = None) -> Any:
    sources = [Source(f"set {number}", data) for number, data in enumerate(datasets)]
    return data_statistics(cast(Task, task), sources, Data(), model)


def test_the_first_data_with_the_inputs_is_described() -> None:
    others = [{"image": torch.zeros(3)}] * 4
    found = describe(Asked(), others, Rows(5), Rows(7))
    assert (found.source, found.samples, found.outputs) == ("set 1", 5, {})
    assert describe(Asked(), others) is None


def test_a_large_dataset_is_drawn_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLES", 1000)
    found = describe(Asked(), Rows(100_000))
    assert found.samples == 1000
    assert found.inputs["x"][0].mean == pytest.approx(50_000, rel=0.1)


@pytest.mark.parametrize("length", [70, 5000])
def test_a_stream_is_described_by_its_first_samples(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(module, "SAMPLES", 100)
    found = describe(Asked(), Stream(length))
    assert found.samples == min(length, 100)
    assert found.inputs["x"][1].max == found.samples - 1


def test_a_slow_dataset_is_left_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.0)
    assert describe(Asked(), Rows(1000)).samples <= module.BATCH


def test_outputs_are_the_trained_models_and_inputs_are_as_they_were_read() -> None:
    task = Asked()
    found = describe(task, Rows(40), model=nn.Identity())
    assert found.inputs["x"][0].max == 39, "though the task changes them in place"
    assert found.outputs["y"][0].max == 2 * 139
    assert sum(task.sizes) == 40


def test_samples_of_free_sizes_come_alone_so_that_nothing_is_padding() -> None:
    free = Signature((TensorSpec("x", "float32", (-1, -1)),), (TensorSpec("y", "float32", (-1,)),))
    task = Asked(free)
    found = describe(task, [{"x": torch.ones(size)} for size in (1, 5, 3)], model=nn.Identity())
    assert task.sizes == [1, 1, 1]
    (feature,) = found.inputs["x"]
    assert (feature.count, feature.min) == (9, 1.0)


def test_texts_and_bfloat16_have_statistics_too() -> None:
    signature = Signature(
        (TensorSpec("text", "bytes", (-1,)), TensorSpec("x", "bfloat16", (-1, 1))),
        (TensorSpec("text", "bytes", (-1,)), TensorSpec("x", "bfloat16", (-1, 1))),
    )

    class Echo(Asked):
        def predict(self, model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            assert inputs["x"].dtype == torch.bfloat16
            assert [type(text) for text in inputs["text"]] == [bytes] * len(inputs["text"])
            return {"text": ["ä"] * len(inputs["text"]), "x": inputs["x"] * 2}

    samples = [{"text": "word" * number, "x": torch.tensor([1.5]).bfloat16()} for number in range(4)]
    found = describe(Echo(signature), samples, model=nn.Identity())
    assert found.inputs["text"][0].classes == (0, 4, 8, 12)
    assert found.inputs["x"][0].mean == 1.5
    assert found.outputs["text"][0].classes == (2,), "bytes, not characters"
    assert found.outputs["x"][0].mean == 3.0
