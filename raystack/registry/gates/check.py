"""The check of one version by all gates that are set."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from raystack.checkpoint.model import ModelSpec, read_spec
from raystack.checkpoint.signing import verify_signature
from raystack.config import RunConfig
from raystack.config.gates import ChampionGate, Gates, LatencyGate, MetricGate
from raystack.config.serving import Loaded, Serving
from raystack.config.sign import Verify
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.registry.files import placed
from raystack.registry.gates.champion import better, bound
from raystack.registry.gates.compatible import broken
from raystack.registry.gates.report import SIGNED, Check, GateReport
from raystack.registry.gates.timing import latency_ms
from raystack.registry.resolve import describe, pin, resolve


def check(
    config: RunConfig,
    version: str,
    tracking: Tracking,
    *,
    alias: str | None = None,
    served: Loaded | None = None,
) -> GateReport:
    """Check a version, `models:/name/version` or a folder, by `registry.gates`.

    `alias` is the one that is to move, by default `registry.alias`. `served` is what a rollout is beside: the
    version is compared with its. `tracking` has its `uri` decided. Raises ConfigError if there is no such
    version, ServingError if MLflow does not answer.
    """
    gates, alias = config.registry.gates, alias or config.registry.alias
    if gates is None:
        return GateReport(version, ())
    verify = (served or _served(config.serving, version)).verify
    stable = served.model if served is not None else None
    with placed(version):
        folder = resolve(version, tracking)
    others = _Others(version, alias, stable, tracking)
    checks = _Checks(gates, version, folder, verify, others, tracking)
    return GateReport(version, tuple(checks.all()))


def _served(serving: Serving, version: str) -> Loaded:
    """Return the section that serves versions of the model, so that its `verify` is asked."""
    shared = serving.multiplexed.models if serving.multiplexed is not None else {}
    model = f"models:/{_model(version)}"
    for each in (*serving.models.values(), *shared.values()):
        if each.model is not None and each.model.startswith((f"{model}@", f"{model}/")):
            return each
    return serving


class _Checks:
    """The checks of a version."""

    def __init__(
        self,
        gates: Gates,
        version: str,
        folder: Path,
        verify: Verify | None,
        others: "_Others",
        tracking: Tracking,
    ) -> None:
        self._gates, self._version, self._folder, self._verify = gates, version, folder, verify
        self._others, self._tracking = others, tracking

    def all(self) -> Iterator[Check]:
        """Yield each check that is asked for; nothing is read of files that are not as they were signed."""
        if self._verify is not None:
            signed = self._signed(self._verify)
            yield signed
            if not signed.passed:
                return
        gates = self._gates
        for name, limits in gates.metrics.items():
            yield _bounded(f"metrics.{name}", self._spec.metrics.get(name), limits)
        if gates.champion is not None:
            yield self._better(gates.champion)
        if gates.latency_ms is not None:
            yield self._fast(gates.latency_ms)
        if gates.size_mb is not None:
            size = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file()) / 1e6
            yield _bounded("size_mb", size, MetricGate(max=gates.size_mb.max))
        if gates.signature is not None:
            yield self._compatible()
        for name in gates.card:
            yield self._said(name)

    @cached_property
    def _spec(self) -> ModelSpec:
        return read_spec(self._folder)

    def _signed(self, verify: Verify) -> Check:
        asked = "the files are those that were signed"
        try:
            verify_signature(self._folder, verify)
        except ServingError as error:
            return Check(SIGNED, False, None, asked, str(error))
        return Check(SIGNED, True, "signed", asked, "all files are as they were signed")

    def _better(self, asked: ChampionGate) -> Check:
        found = self._others.find(asked.alias)
        if isinstance(found, _Nothing):
            return Check("champion", found.passes, None, bound(asked), found.why)
        return better(asked, self._version, self._folder, *found)

    def _fast(self, asked: LatencyGate) -> Check:
        missing, took = "the model has no example of its inputs to be timed by", None
        try:
            took = latency_ms(self._folder, asked.percentile)
        except ServingError as error:
            missing = str(error)
        return _bounded("latency_ms", took, MetricGate(max=asked.max), missing)

    def _compatible(self) -> Check:
        asked = "it answers what the other version answers"
        found = self._others.find()
        if isinstance(found, _Nothing):
            return Check("signature", found.passes, None, asked, found.why)
        other, folder = found
        breaks = list(broken(read_spec(folder).signature, self._spec.signature))
        reason = f"breaks what clients of {other} send or read: {'; '.join(breaks)}"
        measured = {"against": other, "broken": breaks}
        return Check("signature", not breaks, measured, asked, reason if breaks else f"as {other}")

    def _said(self, name: str) -> Check:
        said = ""
        if _model(self._version) is not None:
            said = describe(self._version, self._tracking).get(name, "")
        reason = "it is said" if said else f"MLflow has no {name} of {self._version}"
        return Check(f"card.{name}", bool(said), said[:200] or None, "said in MLflow", reason)


class _Nothing(NamedTuple):
    """There is no version to compare with."""

    passes: bool
    """Whether a version passes for want of another."""
    why: str


class _Others:
    """The versions to compare with."""

    def __init__(self, version: str, alias: str | None, stable: str | None, tracking: Tracking) -> None:
        self._version, self._alias, self._stable, self._tracking = version, alias, stable, tracking

    def find(self, asked: str | None = None) -> tuple[str, Path] | _Nothing:
        """Return a version and its files: that of the alias that is `asked` for, else the one that is served
        in a rollout, else that of the alias that is to move.
        """
        alias = asked or (None if self._stable else self._alias)
        if alias is None and self._stable is None:
            return _Nothing(False, "there is no version to compare with: set registry.alias")
        other = self._stable if alias is None else self._pointed(alias)
        if self._stable is not None and other in (None, self._version):
            other = self._stable  # the alias may have moved first, and a rollout follows
        if other is None:
            return _Nothing(True, f"there is no champion yet: no version has the alias {alias}")
        if other == self._version:
            return _Nothing(True, f"it has the alias {alias} already")
        return other, resolve(other, self._tracking)

    def _pointed(self, alias: str) -> str | None:
        try:
            return pin(f"models:/{_model(self._version)}@{alias}", self._tracking)
        except ConfigError:
            return None


def _model(version: str) -> str | None:
    """Return the registered model of a version; None for a folder."""
    return version.removeprefix("models:/").partition("/")[0] if version.startswith("models:/") else None


def _bounded(
    name: str, value: float | None, limits: MetricGate, missing: str = "it was not measured"
) -> Check:
    words = (("min", limits.min), ("max", limits.max))
    asked = " and ".join(f"{word} {limit:g}" for word, limit in words if limit is not None)
    if value is None:
        return Check(name, False, None, asked, missing)
    low = limits.min is not None and not value >= limits.min
    high = limits.max is not None and not value <= limits.max
    return Check(name, not (low or high), value, asked, f"{value:.4g}, and asked is {asked}")
