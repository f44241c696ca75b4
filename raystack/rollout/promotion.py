"""The alias of a version that answers all requests."""

from raystack import registry
from raystack.errors import ConfigError
from raystack.plan.rollout import RolloutPlan
from raystack.rollout.deciding import numbers
from raystack.rollout.state import State


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
        who="raystack rollout",
        why=f"rollout {state.id} of {state.candidate} is complete",
        measured=numbers(plan, state),
        tracking=plan.serve.tracking,
        storage=plan.config.experiment.storage,
    )
