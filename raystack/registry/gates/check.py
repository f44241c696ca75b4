"""The check of one version by all gates that are set."""

import math
from collections.abc import Iterator
from pathlib import Path

from raystack.checkpoint.evaluation import read_evaluation, set_of
from raystack.checkpoint.model import read_spec
from raystack.config import RunConfig
from raystack.config.gates import ChampionGate, Gates, MetricGate
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError
from raystack.registry.gates.paired import p_value
from raystack.registry.gates.report import Check, GateReport
from raystack.registry.gates.timing import latency_ms
from raystack.registry.resolve import describe, find_files, pin
from raystack.task import Signature, TensorSpec


def check(config: RunConfig, version: str, tracking: Tracking, *, alias: str | None = None) -> GateReport:
    """Check `models:/name/version` by `registry.gates`; `tracking` has its `uri` decided.

    `alias` is the one that is to move, by default `registry.alias`. Raises ConfigError if there is no such
    version, ServingError if MLflow does not answer.
    """
    gates, alias = config.registry.gates, alias or config.registry.alias
    if gates is None:
        return GateReport(version, ())
    return GateReport(version, tuple(_Checks(gates, version, alias, tracking).all()))


class _Checks:
    """The checks of a version."""

    def __init__(self, gates: Gates, version: str, alias: str | None, tracking: Tracking) -> None:
        self._gates, self._version, self._tracking = gates, version, tracking
        self._model = version.removeprefix("models:/").partition("/")[0]
        self._alias = alias
        _, self._folder = find_files(version, tracking)
        self._spec = read_spec(self._folder)

    def all(self) -> Iterator[Check]:
        """Yield each check that is asked for."""
        gates = self._gates
        for name, bound in gates.metrics.items():
            yield _bounded(f"metrics.{name}", self._spec.metrics.get(name), bound)
        if gates.champion is not None:
            yield self._better(gates.champion)
        if gates.latency_ms is not None:
            bound = MetricGate(max=gates.latency_ms.max)
            took = latency_ms(self._folder, gates.latency_ms.percentile)
            yield _bounded("latency_ms", took, bound, "the model has no example of its inputs to be timed by")
        if gates.size_mb is not None:
            size = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file()) / 1e6
            yield _bounded("size_mb", size, MetricGate(max=gates.size_mb.max))
        if gates.signature is not None:
            yield self._compatible()
        for name in gates.card:
            yield self._said(name)

    def _better(self, asked: ChampionGate) -> Check:
        bound = f"{asked.metric} better by more than {asked.margin:g}, p below {asked.alpha:g}"
        found = self._other(asked.alias)
        if isinstance(found, str):
            return Check("champion", True, None, bound, found)
        other, folder = found
        mine, theirs = read_evaluation(self._folder), read_evaluation(folder)
        for name, sets in ((self._version, mine), (other, theirs)):
            if not sets:
                rule = f"{name} has no record of its evaluation: train it with registry.gates set"
                return Check("champion", False, None, bound, rule)
        place = set_of(mine, asked.metric)
        if place is None or place[0] not in theirs:
            reason = f"no eval set of both has {asked.metric}; there are {', '.join(sorted(mine))}"
            return Check("champion", False, None, bound, reason)
        new, old = mine[place[0]], theirs[place[0]]
        if new.fingerprint != old.fingerprint:
            reason = f"evaluated on other data than {other}; train one with the eval data of the other"
            return Check("champion", False, None, bound, reason)
        values, others = new.values(place[1]), old.values(place[1])
        if values is None or others is None or not all(map(math.isfinite, (*values, *others))):
            reason = f"{asked.metric} is no number on each part of the evaluation data"
            return Check("champion", False, None, bound, reason)
        return _tested(asked, values, others, other, bound)

    def _compatible(self) -> Check:
        bound = "it answers what the version with the alias answers"
        found = self._other(None)
        if isinstance(found, str):
            return Check("signature", True, None, bound, found)
        other, folder = found
        broken = list(_broken(read_spec(folder).signature, self._spec.signature))
        reason = f"breaks what clients of {other} send or read: {'; '.join(broken)}"
        return Check("signature", not broken, broken, bound, reason if broken else f"as {other}")

    def _said(self, name: str) -> Check:
        said = describe(self._version, self._tracking).get(name, "")
        reason = "it is said" if said else f"MLflow has no {name} of {self._version}"
        return Check(f"card.{name}", bool(said), said[:200] or None, "said in MLflow", reason)

    def _other(self, alias: str | None) -> tuple[str, Path] | str:
        """Return the version with the alias and its files; why there is nothing to compare with, if so."""
        alias = alias or self._alias
        if alias is None:
            return "no alias is to move, so there is no version to compare with"
        try:
            other = pin(f"models:/{self._model}@{alias}", self._tracking)
        except ConfigError:
            return f"no version has the alias {alias} yet"
        if other == self._version:
            return f"it has the alias {alias} already"
        return other, find_files(other, self._tracking)[1]


def _bounded(
    name: str, value: float | None, bound: MetricGate, missing: str = "it was not measured"
) -> Check:
    limits = (("min", bound.min), ("max", bound.max))
    asked = " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)
    if value is None:
        return Check(name, False, None, asked, missing)
    low = bound.min is not None and not value >= bound.min
    high = bound.max is not None and not value <= bound.max
    return Check(name, not (low or high), value, asked, f"{value:.4g}, and asked is {asked}")


def _tested(asked: ChampionGate, new: list[float], old: list[float], other: str, bound: str) -> Check:
    p = p_value(new, old, asked.margin, higher=asked.mode == "max")
    means = sum(new) / len(new), sum(old) / len(old)
    measured = {"new": means[0], "old": means[1], "p": p, "chunks": len(new), "against": other}
    reason = f"{asked.metric} is {means[0]:.4g}, and {means[1]:.4g} of {other}; p is {p:.3g}"
    return Check("champion", p < asked.alpha, measured, bound, reason)


def _broken(old: Signature, new: Signature) -> Iterator[str]:
    """Yield what clients of the old signature cannot send or read any more."""
    sent = {spec.name: spec for spec in old.inputs}
    for spec in new.inputs:
        if spec.name not in sent:
            yield f"input '{spec.name}' ({spec.dtype}) is new"
        else:
            yield from _other_tensor("input", sent[spec.name], spec)
    taken = {spec.name for spec in new.inputs}
    for spec in old.inputs:
        if spec.name not in taken:
            yield f"input '{spec.name}' ({spec.dtype}) is gone"
    answered = {spec.name: spec for spec in new.outputs}
    for spec in old.outputs:
        if spec.name not in answered:
            yield f"output '{spec.name}' ({spec.dtype}) is gone"
        else:
            yield from _other_tensor("output", spec, answered[spec.name])


def _other_tensor(side: str, old: TensorSpec, new: TensorSpec) -> Iterator[str]:
    if old.dtype != new.dtype:
        yield f"{side} '{old.name}' is {new.dtype}, and was {old.dtype}"
    free = zip(old.shape, new.shape, strict=False)
    if len(old.shape) != len(new.shape) or any(was != now and now != -1 for was, now in free):
        yield f"{side} '{old.name}' has shape {list(new.shape)}, and had {list(old.shape)}"
