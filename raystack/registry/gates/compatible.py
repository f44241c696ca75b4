"""What another version breaks of what clients of the one before send and read.

An input may take more than before, and an output may answer less. A free size, -1, is more than a fixed one.
"""

from collections.abc import Iterator, Sequence

from raystack.task import Signature, TensorSpec

FREE = -1


def broken(old: Signature, new: Signature) -> Iterator[str]:
    """Yield what clients of the old signature cannot send or read any more."""
    yield from _added(old.inputs, new.inputs)
    yield from _lost("input", old.inputs, new.inputs)
    for was, now in _pairs(old.inputs, new.inputs):
        yield from _changed("input", was, now, fits=_covers(now, was))
    yield from _lost("output", old.outputs, new.outputs)
    for was, now in _pairs(old.outputs, new.outputs):
        yield from _changed("output", was, now, fits=_covers(was, now))


Specs = Sequence[TensorSpec]


def _pairs(old: Specs, new: Specs) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    found = {spec.name: spec for spec in new}
    return ((spec, found[spec.name]) for spec in old if spec.name in found)


def _added(old: Specs, new: Specs) -> Iterator[str]:
    names = {spec.name for spec in old}
    return (f"input '{spec.name}' ({spec.dtype}) is new" for spec in new if spec.name not in names)


def _lost(side: str, old: Specs, new: Specs) -> Iterator[str]:
    names = {spec.name for spec in new}
    return (f"{side} '{spec.name}' ({spec.dtype}) is gone" for spec in old if spec.name not in names)


def _changed(side: str, old: TensorSpec, new: TensorSpec, *, fits: bool) -> Iterator[str]:
    if old.dtype != new.dtype:
        yield f"{side} '{old.name}' is {new.dtype}, and was {old.dtype}"
    if not fits:
        yield f"{side} '{old.name}' has shape {list(new.shape)}, and had {list(old.shape)}"


def _covers(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """Return whether every array of `narrow` has a shape of `wide`."""
    sizes = zip(wide.shape, narrow.shape, strict=False)
    return len(wide.shape) == len(narrow.shape) and all(size in (FREE, other) for size, other in sizes)
