"""Whether a version can answer in the place of another."""

from collections.abc import Iterable

from raystack.errors import Problem
from raystack.task import Signature, TensorSpec


def misfit(where: str, stable: Signature, other: Signature) -> Problem | None:
    """Return why a version does not fit beside the stable one; None if it does.

    Its inputs have to be the same; it may have further outputs.
    """
    own, its = _by_name(stable.inputs), _by_name(other.inputs)
    remedy = "update in place instead: serving.model"
    for name in [*own, *(name for name in its if name not in own)]:
        if own.get(name) != its.get(name):
            rule = f"input '{name}' is {_said(own.get(name))} in the version that is served"
            return Problem(where, rule=rule, got=_said(its.get(name)), remedy=remedy)
    own, its = _by_name(stable.outputs), _by_name(other.outputs)
    for name, spec in own.items():
        if spec != its.get(name):
            rule = f"output '{name}' is {_said(spec)} in the version that is served"
            return Problem(where, rule=rule, got=_said(its.get(name)), remedy=remedy)
    return None


def _by_name(specs: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _said(spec: TensorSpec | None) -> str:
    return "none" if spec is None else f"{spec.dtype} {list(spec.shape)}"
