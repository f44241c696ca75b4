"""A version that an alias points to -> its rollout, or the place of the one that is served."""

from raystack.errors import LaunchError, Problem
from raystack.launch import local
from raystack.plan import plan_serving
from raystack.plan.follow import FollowPlan, of_version
from raystack.plan.rollout import plan_rollout
from raystack.rollout.start import start
from raystack.rollout.store import current


def begin(plan: FollowPlan, version: str, *, verbose: bool) -> str:
    """Begin with `models:/name/version`; return what was begun, in words.

    A rollout of another version is sent back first. Raises RaystackError: LaunchError if the cluster is away,
    others for a version that cannot be served.
    """
    from ray.exceptions import RayError  # takes a second, which the start of the follower has not

    try:
        if plan.steps:
            return _roll_out(plan, version, verbose=verbose)
        outcome = local.serve_detached(plan_serving(of_version(plan, version)), verbose=verbose)
    except RayError as error:
        first = str(error).strip().partition("\n")[0]
        address = getattr(plan.config.target, "address", None)
        rule = f"the cluster was lost meanwhile: {first}"
        raise LaunchError(Problem("target.address", rule=rule, got=address)) from error
    return f"it answers at {outcome.links['url']}"


def _roll_out(plan: FollowPlan, version: str, *, verbose: bool) -> str:
    rollout = plan_rollout(of_version(plan, version))
    running = current(rollout.folder)
    state = running.state() if running is not None else None
    if running is not None and state is not None and not state.over:
        if state.candidate == version:
            return f"rollout {state.id} is on its way"
        if state.stable == version:
            running.order("abort", who="raystack follow", why=f"{plan.uri} is {version} again")
            return f"it is served, and rollout {state.id} of {state.candidate} goes back"
    begun = f"rollout {start(rollout, supersede=True, verbose=verbose).id} has begun"
    if state is None or state.over:
        return begun
    return f"{begun}, and supersedes {state.id} of {state.candidate}"
