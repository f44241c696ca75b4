"""What the registry records at the end of a rollout: the alias has moved to the version, or it went back."""

from raystack import registry
from raystack.errors import ConfigError
from raystack.plan.rollout import RolloutPlan
from raystack.registry.audit import Audit
from raystack.rollout.deciding import numbers
from raystack.rollout.state import State

WHO = "raystack rollout"


def move_alias(plan: RolloutPlan, state: State) -> None:
    """Move the plan's alias to the version, if it is not there yet.

    Raises ServingError while MLflow does not answer, another RaystackError if it refuses.
    """
    if plan.alias is None or plan.registered is None:
        return
    try:
        if registry.pin(f"models:/{plan.registered}@{plan.alias}", plan.serve.tracking) == state.candidate:
            return
    except ConfigError:
        pass  # there is no such alias yet
    from raystack.registry import aliases  # imports MLflow

    aliases.move_alias(
        plan.registered,
        plan.alias,
        state.candidate.rpartition("/")[2],
        who=WHO,
        why=f"rollout {state.id} of {state.candidate} is complete",
        measured=numbers(plan, state),
        tracking=plan.serve.tracking,
        storage=plan.config.experiment.storage,
    )


def record_back(plan: RolloutPlan, state: State) -> None:
    """Record once that the version went back, in a tag of it and in the registry's audit."""
    if plan.registered is None:
        return
    storage, measured = plan.config.experiment.storage, {"rollout": state.id, **numbers(plan, state)}
    # The process may have been killed after it.
    if any(move.measured.get("rollout") == state.id for move in Audit(storage, plan.registered).moves()):
        return
    from raystack.registry import aliases  # imports MLflow

    aliases.refuse_alias(
        plan.registered,
        plan.alias,
        state.candidate.rpartition("/")[2],
        who=WHO,
        why=f"rollout {state.id} was {state.ending}: {state.cause}",
        measured=measured,
        tracking=plan.serve.tracking,
        storage=storage,
        what="rolled back",
    )
