"""An automation from its start to the end of its process."""

import threading
import time
from collections.abc import Callable

from raystack.errors import TrainingError
from raystack.plan.automation import AutomationPlan
from raystack.rollout.alone import alone
from raystack.rollout.automation.actions import Actions
from raystack.rollout.automation.loop import Loop
from raystack.rollout.automation.record import Entry, Record
from raystack.rollout.automation.telling import Teller


def run(
    plan: AutomationPlan, on_step: Callable[[Entry], None], say: Callable[[str], None], *, once: bool = False
) -> None:
    """Automate until the process is interrupted; `once`: until there is nothing more to do now.

    `once` waits for a round that has begun. Raises ConfigError, and LaunchError if another process has this
    automation.
    """
    with alone(plan.folder, f"the automation of '{plan.name}'", say) as fence:
        record = Record(plan.folder)
        teller = Teller(plan.automation.events, plan.name, record)

        def tell(entry: Entry) -> None:
            teller.tell(entry)
            on_step(entry)

        loop = Loop(plan, record, Actions(plan, say), tell, time.time())
        waiting, away = threading.Event(), ""
        if not once:
            say("automating until Ctrl-C; a training that has begun goes on after it")
        try:
            while True:
                fence.check()
                try:
                    loop.step(time.time())
                    teller.deliver()
                    away = ""
                except TrainingError as error:  # of the storage; nothing is done that is not recorded
                    if str(error) != away:
                        say(f"{error}; it is tried again")
                    away = str(error)
                if once and loop.rests:
                    return
                waiting.wait(plan.automation.poll_s)
        finally:
            teller.deliver(last=True)
