"""Following an alias from the start to the end of the process."""

from collections.abc import Callable

from raystack.plan.follow import FollowPlan
from raystack.rollout.alone import alone
from raystack.rollout.follow.begin import begin
from raystack.rollout.follow.watch import Watch, woken


def run(
    plan: FollowPlan,
    say: Callable[[str], None],
    *,
    verbose: bool = False,
    ends: Callable[[], bool] = lambda: False,
) -> None:
    """Follow until the process is interrupted, or `ends` says so at a look.

    Raises ConfigError, and LaunchError if another process follows the alias or the webhook cannot be.
    """
    with alone(plan.folder, f"the follower of {plan.uri}", say) as fence:
        watch = Watch(plan, lambda version: begin(plan, version, verbose=verbose), say)

        def over() -> bool:
            fence.check()
            return ends()

        with woken(plan, watch):
            say(f"following {plan.uri} until Ctrl-C; a rollout that has begun goes on after it")
            watch.run(over)
