"""Weights & Biases, online or as offline files. Importing this module imports W&B, which takes seconds."""

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import wandb

from raystack.plan import TrainPlan
from raystack.trackers.offline import await_end, folders, last_steps
from raystack.trackers.recorder import LIMIT_S
from raystack.trackers.tracker import Status

TAG_CHARS = 64
"""W&B's limit for a tag."""


class WandB:
    """Tracker that records in a W&B run, whose id is the run's own. `group` is the study of a trial.

    W&B's history only grows: what it has from an earlier start or attempt of the run stays, and a step is not
    recorded again.
    """

    def __init__(self, plan: TrainPlan, key: str | None, group: str | None) -> None:
        self._plan, self._key, self._group = plan, key, group
        self._run: wandb.Run | None = None
        self._last: dict[str, int] = {}
        """Last recorded step of each metric."""

    @property
    def links(self) -> Mapping[str, str]:
        if self._run is None:
            return {}
        above = Path(self._run.settings.sync_dir).parent
        if not self._run.offline:
            group = f"{self._run.project_url}/groups/{quote(self._group)}" if self._group else None
            return {"wandb": group or str(self._run.url)}
        if self._group:
            return {"wandb": f"wandb sync {shlex.quote(str(above))}/offline-run-*-{self._group}-*"}
        # The files of each start, because all of them together are the run.
        return {"wandb": shlex.join(["wandb", "sync", *map(str, folders(above, self._plan.run_id))])}

    def start(self, step: int) -> None:
        if self._run is not None:
            return
        self._run = self._opened()
        if self._run.offline:
            self._last = last_steps(Path(self._run.settings.sync_dir).parent, self._plan.run_id)

    def metrics(self, step: int, metrics: Mapping[str, float], at: float) -> None:
        assert self._run is not None, "it has been started"
        before = self._run.starting_step - 1  # 0 for offline files, which know nothing of each other
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, before)}
        if new:
            self._run.log(new, step=step)
            self._last.update(dict.fromkeys(new, step))
        else:
            self._run.summary.update(dict(metrics))

    def checkpoint(self, step: int, url: str) -> None:
        assert self._run is not None, "it has been started"
        self._run.summary.update({"checkpoint": url, "checkpoint_step": step})

    def finish(self, status: Status) -> None:
        assert self._run is not None, "it has been started"
        if status == "paused":
            self._run.mark_preempting()  # its state is then `preempted`, and not `crashed`
        self._run.finish(exit_code=0 if status == "finished" else 1)
        if self._run.offline:
            await_end(Path(self._run.settings.sync_dir), self._plan.run_id)

    def _opened(self) -> "wandb.Run":
        plan, section = self._plan, self._plan.config.tracking.wandb
        assert section is not None
        tags = plan.config.experiment.tags
        own = {"api_key": self._key, "base_url": section.base_url}  # where None, W&B looks for its own
        return wandb.init(
            project=plan.trackers.wandb,
            entity=section.entity,
            group=self._group or section.group,
            id=plan.run_id,
            name=plan.run_id,
            tags=[f"{name}={value}"[:TAG_CHARS] for name, value in tags.items()],
            config=plan.config.model_dump(mode="json"),
            allow_val_change=True,
            dir=plan.trackers.wandb_above or tempfile.mkdtemp(),
            mode=section.mode,
            resume="allow",
            reinit="create_new",  # a run of the user's own in this process stays
            settings={
                **{name: value for name, value in own.items() if value is not None},
                "console": "off",  # the process's output is left alone
                "silent": True,
                "x_disable_stats": not plan.config.tracking.system_metrics,
                "init_timeout": LIMIT_S,
                "finish_timeout": LIMIT_S,
            },
        )
