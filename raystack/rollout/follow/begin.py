"""A version that an alias points to -> its rollout, or the place of the one that is served."""

from raystack.errors import LaunchError, Problem
from raystack.launch import local
from raystack.plan import plan_serving
from raystack.plan.follow import FollowPlan, of_version


def begin(plan: FollowPlan, version: str, *, verbose: bool) -> str:
    """Begin with `models:/name/version`; return what was begun, in words.

    Raises RaystackError: LaunchError if the cluster is away, others for a version that cannot be served.
    """
    from ray.exceptions import RayError  # takes a second, which the start of the follower has not

    try:
        outcome = local.serve_detached(plan_serving(of_version(plan, version, None)), verbose=verbose)
    except RayError as error:
        first = str(error).strip().partition("\n")[0]
        address = getattr(plan.config.target, "address", None)
        rule = f"the cluster was lost meanwhile: {first}"
        raise LaunchError(Problem("target.address", rule=rule, got=address)) from error
    return f"it answers at {outcome.links['url']}"
