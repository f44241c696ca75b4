"""TensorBoard's event files. Importing this module imports TensorBoard.

The files are written by TensorBoard's own writer, which neither torch nor TensorFlow is needed for. One file
has what one start of the run has recorded; TensorBoard reads all files of a folder as one run.
"""

import json
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata, summary_v2
from tensorboard.plugins.hparams.api_pb2 import Status as SessionStatus
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from raystack import config as configs
from raystack.plan import TrainPlan
from raystack.storage import Storage
from raystack.trackers.tracker import Status

UPLOAD_S = 30.0
"""Seconds between two uploads of the file to an object store, which cannot append."""

ENDS: Mapping[Status, SessionStatus] = {
    "finished": SessionStatus.STATUS_SUCCESS,
    "failed": SessionStatus.STATUS_FAILURE,
    "paused": SessionStatus.STATUS_UNKNOWN,
}
"""TensorBoard's status of a session. It has none for a run that can go on."""


class TensorBoard:
    """Tracker that writes scalars, hyperparameters, and as texts the config and the checkpoints."""

    def __init__(self, plan: TrainPlan) -> None:
        assert plan.trackers.tensorboard is not None
        self._config, self._run = plan.config, plan.run_id
        self._above = plan.trackers.tensorboard
        self._storage = Storage(f"{self._above}/{plan.run_id}")
        self._flush_s = plan.config.tracking.flush_s
        self._scratch = None if self._storage.local else tempfile.TemporaryDirectory()
        self._local = str(self._storage.make("")) if self._scratch is None else self._scratch.name
        self._writer: EventFileWriter | None = None
        self._uploaded = time.monotonic()

    @property
    def links(self) -> Mapping[str, str]:
        return {"tensorboard": f"tensorboard --logdir {shlex.quote(self._above)}"}

    def start(self, step: int) -> None:
        if self._writer is None:
            self._writer = EventFileWriter(self._local, flush_secs=self._flush_s)
            self._add(step, text_pb("config", f"```yaml\n{configs.dump(self._config)}```"))
            params = dict(_flat(self._config.model_dump(mode="json")))
            self._add(step, summary_v2.hparams_pb(params, trial_id=self._run))
        # A session that starts at a step replaces what has been recorded from there on.
        self._write(Event(step=step + 1 if step else 0, session_log=SessionLog(status=SessionLog.START)))

    def metrics(self, step: int, metrics: Mapping[str, float], at: float) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(Event(step=step, summary=Summary(value=values), wall_time=at))
        if self._scratch is not None and time.monotonic() - self._uploaded > UPLOAD_S:
            self._upload()

    def checkpoint(self, step: int, url: str) -> None:
        self._add(step, text_pb("checkpoint", url))

    def finish(self, status: Status) -> None:
        assert self._writer is not None, "it has been started"
        end = HParamsPluginData(
            session_end_info=SessionEndInfo(status=ENDS[status], end_time_secs=time.time())
        )
        value = Summary.Value(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(end),
            tensor=metadata.NULL_TENSOR,
        )
        self._add(0, Summary(value=[value]))
        self._writer.close()
        if self._scratch is not None:
            self._upload()
            self._scratch.cleanup()

    def _add(self, step: int, summary: Summary) -> None:
        self._write(Event(step=step, summary=summary, wall_time=time.time()))

    def _write(self, event: Event) -> None:
        assert self._writer is not None, "it has been started"
        self._writer.add_event(event)

    def _upload(self) -> None:
        assert self._writer is not None, "it has been started"
        self._writer.flush()
        for file in Path(self._local).iterdir():
            self._storage.put(file, file.name)
        self._uploaded = time.monotonic()


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Yield nested values as (dotted key, value of a type that a hyperparameter has); lists become JSON."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, (bool, int, float, str)):
        yield prefix, node
    elif node is not None:
        yield prefix, json.dumps(node)
