"""A version that is promoted: it passes the gates and gets the alias, or is refused. Both are recorded."""

import getpass
import socket
from dataclasses import dataclass

from raystack.config import RunConfig
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, PlanError, Problem, RaystackError
from raystack.plan.training import plan_tracking
from raystack.registry.aliases import move_alias, refuse_alias
from raystack.registry.audit import Audit, Move
from raystack.registry.command import Registered
from raystack.registry.files import placed
from raystack.registry.gates.check import check
from raystack.registry.gates.report import GateReport
from raystack.registry.resolve import newest_version, pin


@dataclass(frozen=True)
class Promotion:
    """What became of a version."""

    report: GateReport
    move: Move
    """The move of the alias, or the refusal of it."""

    @property
    def done(self) -> bool:
        """Whether the alias points to the version."""
        return self.move.what != "refused"


def promote(
    config: RunConfig, version: str, *, alias: str | None, who: str, why: str, force: bool = False
) -> Promotion:
    """Check `models:/name/version` by the gates, and have the alias point to it if it passes.

    `force` has it pass whatever the gates say, which are checked and recorded all the same. Raises
    ConfigError without an alias or such a version, ServingError if MLflow does not answer.
    """
    alias = alias or config.registry.alias
    if alias is None:
        remedy = "set it, or name one with --alias"
        raise ConfigError(Problem("registry.alias", rule="names no alias to move", remedy=remedy))
    tracking, storage = tracking_of(config), config.experiment.storage
    model, _, number = version.removeprefix("models:/").partition("/")
    report = check(config, version, tracking, alias=alias)
    if not report.passed and not force:
        return Promotion(report, refused(report, tracking, storage, alias=alias, who=who))
    move = move_alias(
        model,
        alias,
        number,
        who=who,
        why=why,
        measured=report.measured,
        tracking=tracking,
        storage=storage,
        what="promoted" if report.passed else "forced",
    )
    return Promotion(report, move)


def refused(report: GateReport, tracking: Tracking, storage: str, *, alias: str | None, who: str) -> Move:
    """Record that a version, `models:/name/version`, was refused; `alias` was to move to it, if any was."""
    model, _, number = report.version.removeprefix("models:/").partition("/")
    return refuse_alias(
        model,
        alias,
        number,
        who=who,
        why=report.why,
        measured=report.measured,
        tracking=tracking,
        storage=storage,
    )


def demote(config: RunConfig, *, alias: str | None, who: str, why: str) -> Move:
    """Have the alias point to the version that it pointed to before, as the audit has it.

    Raises ConfigError if there is none, ServingError if MLflow does not answer.
    """
    model, alias = config.registry.model, alias or config.registry.alias
    if model is None or alias is None:
        raise ConfigError(Problem("registry", rule="names no alias of a model", remedy="set model and alias"))
    tracking, storage = tracking_of(config), config.experiment.storage
    with placed("registry.alias", "name one that it has: --alias"):
        now = pin(f"models:/{model}@{alias}", tracking).rpartition("/")[2]
    before = Audit(storage, model).version_before(alias, now)
    if before is None:
        rule = f"the audit knows no version that models:/{model}@{alias} pointed to before version {now}"
        remedy = "promote the one that it should point to"
        raise ConfigError(Problem(f"models:/{model}@{alias}", rule=rule, remedy=remedy))
    return move_alias(
        model,
        alias,
        before,
        who=who,
        why=why,
        measured={},
        tracking=tracking,
        storage=storage,
        what="demoted",
    )


def gated_alias(config: RunConfig, registered: Registered | None, run: str) -> tuple[str | None, str | None]:
    """Move the alias of a run's version if it passes the gates; return the alias, and a note if not."""
    alias = config.registry.alias
    if config.registry.model is None or config.registry.gates is None or alias is None:
        return (registered.alias, None) if registered is not None else (None, None)
    if registered is None:
        return None, f"the alias {alias} has not moved: use `raystack promote` when MLflow has the version"
    try:
        done = promote(
            config, registered.version, alias=alias, who=whoever(), why=f"run {run} has trained it"
        )
    except RaystackError as error:
        return None, f"the alias {alias} has not moved, and `raystack promote` moves it: {error}"
    if not done.done:
        return None, f"the gates refuse {registered.version}, and {alias} stays: {done.report.why}"
    model = registered.version.removeprefix("models:/").partition("/")[0]
    return f"models:/{model}@{alias}", None


def newest(config: RunConfig) -> str:
    """Return the newest version of `registry.model`. Raises as `promote` does."""
    model = config.registry.model
    if model is None:
        raise ConfigError(Problem("registry.model", rule="names no registered model", remedy="set it"))
    with placed("registry.model"):
        return newest_version(model, tracking_of(config))


def tracking_of(config: RunConfig) -> Tracking:
    """Return the section with its `uri` decided. Raises PlanError if tracking is off."""
    uri = plan_tracking(config)[0]
    if uri is None:
        rule, remedy = "an alias is MLflow's, and tracking is off", "use tracking=local or a server"
        raise PlanError(Problem("tracking.kind", rule=rule, remedy=remedy))
    return config.tracking.model_copy(update={"uri": uri})


def whoever() -> str:
    """Return the user and the machine."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user may have no name
        return socket.gethostname()
