"""Following an alias from the start to the end of the process."""

from collections.abc import Callable

from raystack.plan.follow import FollowPlan
from raystack.rollout.alone import alone
from raystack.rollout.follow.watch import Watch, woken


def run(plan: FollowPlan, say: Callable[[str], None], *, verbose: bool) -> None:
    """Follow until the process is interrupted. Raises ConfigError, and LaunchError if another one does."""
    with alone(plan.folder, f"the follower of {plan.uri}", say) as fence:
        watch = Watch(plan, lambda version: "not there yet", say)
        with woken(plan, watch):

            def ends() -> bool:
                fence.check()
                return False

            watch.run(ends)
