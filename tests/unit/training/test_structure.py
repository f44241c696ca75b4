"""Batches keep the types they are given, on their way through collate, a loader process and to the device."""

import dataclasses
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from raystack.config.data import Data
from raystack.config.training import Batch as BatchConfig
from raystack.config.training import Training
from raystack.plan.batch import Batch
from raystack.training.data import BatchPlan, open_train_data, sample_order, to_device, training_batches
from raystack.training.data.structure import collate

META = torch.device("meta")
Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass(frozen=True)
class Image:
    pixels: Tensor
    name: str
    size: int = dataclasses.field(init=False, default=7)


@dataclasses.dataclass(slots=True)
class Nested:
    image: Image
    boxes: list[Tensor]


class Encoding(UserDict[str, Any]):
    """As transformers' BatchEncoding: a mapping that is no dict, with attributes and a `to` of its own."""

    encodings = "kept"

    def to(self, device: torch.device) -> "Encoding":
        self.data = {name: value.to(device) for name, value in self.data.items()}
        return self


class InPlace:
    """As a graph library's batch: no mapping, and a `to` that returns nothing."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> None:
        self.x = self.x.to(device)


class Locked(OrderedDict[str, Any]):
    """A mapping that refuses `update`, as the outputs of transformers' models do."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("no update")


def nothing() -> Any:
    return "nothing"


def x() -> Tensor:
    return torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "tensor"),
    [
        ({"a": x()}, lambda moved: moved["a"]),
        (OrderedDict(a=x()), lambda moved: moved["a"]),
        (UserDict(a=x()), lambda moved: moved["a"]),
        (Encoding(a=x()), lambda moved: moved["a"]),
        (defaultdict(nothing, a=x()), lambda moved: moved["a"]),
        (MappingProxyType({"a": x()}), lambda moved: moved["a"]),
        ([(x(), "text")], lambda moved: moved[0][0]),
        (Pair(x(), None), lambda moved: moved.x),
        (Image(x(), "cat"), lambda moved: moved.pixels),
        (Nested(Image(x(), "cat"), [x()]), lambda moved: moved.boxes[0]),
        (pack_sequence([torch.ones(3), torch.ones(2)]), lambda moved: moved.data),
        (InPlace(x()), lambda moved: moved.x),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_batch_moves_and_keeps_its_type(batch: Any, tensor: Any) -> None:
    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert tensor(moved).device == META


def test_what_holds_no_tensor_stays_as_it_is() -> None:
    for value in ("text", b"bytes", {1, 2}, frozenset({3}), None, 5, range(3), object(), Tensor):
        assert to_device(value, META) is value


def test_a_moved_copy_leaves_the_batch_and_keeps_what_its_type_has() -> None:
    image = Image(x(), "cat")
    assert to_device(image, META).size == 7
    assert image.pixels.device.type == "cpu"
    words = defaultdict[str, Any](nothing, {"a": [x()]})
    assert to_device(words, META)["missing"] == "nothing"
    assert "missing" not in words
    locked = Locked()
    locked["a"] = x()
    assert to_device(locked, META)["a"].device == META


def test_samples_of_any_kind_become_a_batch_of_their_kind() -> None:
    images = [Image(torch.full((2,), float(number)), f"{number}") for number in range(3)]
    batch = collate([Nested(image, [image.pixels]) for image in images])
    assert isinstance(batch, Nested)
    assert isinstance(batch.image, Image)
    assert batch.image.pixels.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch.image.name == ["0", "1", "2"]  # type: ignore[comparison-overlap]
    assert type(collate([Encoding(a=x()), Encoding(a=x())])) is Encoding
    assert isinstance(collate([Pair(x(), 1), Pair(x(), 2)]), Pair)


@pytest.mark.parametrize("samples", [[None, None], [torch.ones(2), torch.ones(3)]])
def test_samples_that_make_no_batch_are_told_with_the_remedy(samples: list[Any]) -> None:
    with pytest.raises(
        ValueError, match=r"these samples make no batch \(.*\); give the task a method `collate`"
    ):
        collate(samples)


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [0, 1])
def test_a_tasks_own_batches_pass_through_a_loader(loaders: int) -> None:
    class Packs:
        def collate(self, samples: list[Tensor]) -> PackedSequence:
            return pack_sequence(samples, enforce_sorted=False)

    config = Training(steps=2, batch=BatchConfig(micro=2), data=Data(loaders=loaders, shuffle=False))
    data = open_train_data([torch.ones(size) for size in (3, 1, 2, 2)], config)
    schedule, order = BatchPlan(Batch(2, 2, 1, 1), 4, 0), sample_order(data, 3, config.data, 2)
    for batch in training_batches(Packs(), data, order, schedule, 0, config.data, 3, pin=False):  # type: ignore[arg-type]
        assert isinstance(to_device(batch, META), PackedSequence)
        assert len(batch.data) == 4
