"""A version that an alias points to -> its rollout, or the place of the one that is served."""

from raystack.launch import local
from raystack.plan import plan_serving
from raystack.plan.follow import FollowPlan, of_version


def begin(plan: FollowPlan, version: str, *, verbose: bool) -> str:
    """Begin with `models:/name/version`; return what was begun, in words.

    Raises RaystackError: LaunchError if the cluster is away, others for a version that cannot be served.
    """
    outcome = local.serve_detached(plan_serving(of_version(plan, version, None)), verbose=verbose)
    return f"it answers at {outcome.links['url']}"
