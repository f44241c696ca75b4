"""The output of verbs: results on stdout as text or JSON with stable keys, everything else on stderr."""

import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack import strict_json
from raystack.config import RunConfig, dump
from raystack.display import listing, units
from raystack.display.console import say, warn
from raystack.display.rollout import shown_rollout
from raystack.errors import LaunchError, RaystackError
from raystack.outcome import Outcome, Prediction
from raystack.plan.describe import PlanView
from raystack.status import Diagnosis, JobHandle, LogLine, Status

if TYPE_CHECKING:
    from raystack.checkpoint.report import Report
    from raystack.kuberay.actions.changes import Change
    from raystack.kuberay.actions.check import Check
    from raystack.kuberay.actions.gc import Leftover
    from raystack.kuberay.lint import Finding
    from raystack.kuberay.observe.connect import ForwardedPort
    from raystack.registry.audit import Move
    from raystack.registry.gates import Promotion
    from raystack.rollout.automation.record import Entry
    from raystack.rollout.handle import RolloutHandle
    from raystack.rollout.state import Decision, State
    from raystack.runs.report import Line as CostLine
    from raystack.tuning.study import Study

PORT_KEYS = ("what", "url", "token")
LEFTOVER_KEYS = ("name", "namespace", "why", "idle")
COST_KEYS = ("run", "status", "drivers", "spent", "idle")
CHECK_KEYS = ("name", "ok", "found")
SEARCHED_KEYS = ("study", "best", "point", "counts")
STUDY_KEYS = ("name", "status", "trials", "over", "metric", "best", "folder")
STATES = {True: "ok", False: "no", None: "not known"}
SHORT = 60
"""Characters of a value in a comparison."""
LAST_LINES_S = 10.0
"""Seconds that the log of something that has ended may take to arrive."""


class Terminal:
    """The output of verbs, as text or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def say(self, text: str) -> None:
        """Print a line for people, beside the results."""
        say(text)

    def warn(self, text: str) -> None:
        """Warn of something that stops nothing."""
        warn(text)

    def text(self, text: str) -> None:
        """Print a result as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()  # `serve` stays after its result, and a program may be reading it

    def files(self, paths: Iterable[Path | str]) -> None:
        """Show the files that were written."""
        if self._as_json:
            self._json([str(path) for path in paths])
        else:
            self.text("".join(f"{path}\n" for path in paths))

    def plan(self, view: PlanView) -> None:
        """Show a plan: what would be done."""
        if self._as_json:
            self.text(f"{view.json}\n")
        else:
            listing.show_pairs(view.rows)

    def outcome(self, outcome: Outcome) -> None:
        """Show an outcome: where things are, and what to do next."""
        if self._as_json:
            self._json(asdict(outcome))
            return
        self._ended(
            outcome,
            [
                *([("run", f"{outcome.run_id}, {outcome.step} steps")] if outcome.run_id else []),
                *((name, f"{value:.4g}") for name, value in outcome.metrics.items()),
            ],
        )

    def told(self, text: str) -> None:
        """Show what a command that stays has done."""
        if self._as_json:
            self.text(f"{strict_json.dumps({'at': datetime.now().astimezone().isoformat(), 'what': text})}\n")
        else:
            say(text)

    def step(self, entry: "Entry") -> None:
        """Show a step of an automation when it is taken."""
        if self._as_json:
            self.text(f"{strict_json.dumps(asdict(entry))}\n")
        else:
            say("  ".join(_step_row(entry).values()))

    def steps(self, entries: Sequence["Entry"]) -> None:
        """Show steps of an automation."""
        if self._as_json:
            self._json([asdict(entry) for entry in entries])
        elif entries:
            listing.show_table([_step_row(entry) for entry in entries])
        else:
            say("no step")

    def promotion(self, promotion: "Promotion") -> None:
        """Show what the gates found, and what became of the version."""
        if self._as_json:
            checks = [asdict(check) for check in promotion.report.checks]
            self._json({"move": asdict(promotion.move), "checks": checks})
            return
        rows = [
            {"gate": check.name, "": "ok" if check.passed else "no", "reason": check.reason}
            for check in promotion.report.checks
        ]
        if rows:
            listing.show_table(rows)
        self.moves([promotion.move])

    def moves(self, moves: Sequence["Move"]) -> None:
        """Show moves of aliases."""
        if self._as_json:
            self._json([asdict(move) for move in moves])
        elif moves:
            listing.show_table([_move_row(move) for move in moves])
        else:
            say("no move")

    def rollout(self, handle: "RolloutHandle") -> None:
        """Show where a rollout is."""
        from raystack.rollout.view import RolloutView

        view = RolloutView(handle.plan, handle.state)
        if self._as_json:
            self._json(view.values)
            return
        listing.show_pairs(view.rows)
        for table in (view.versions, view.bounds):
            if table:
                self.text("\n")
                listing.show_table(table)

    def watch_rollout(self, handle: "RolloutHandle") -> "State":
        """Show a rollout until it is over; return its last state. As JSON, it is shown at its end alone."""
        from raystack.rollout.view import RolloutView

        plan, last = handle.plan, handle.state
        with shown_rollout() as show:
            for last in handle.watch():
                view = RolloutView(plan, last)
                show(view.rows, (view.versions, view.bounds))
        if self._as_json:
            self.rollout(handle)
        return last

    def decision(self, decision: "Decision") -> None:
        """Show what was decided on an order."""
        if self._as_json:
            self._json(asdict(decision))
        else:
            self.text(f"{decision.what}: {decision.why}\n")

    def decisions(self, decisions: "Sequence[Decision]") -> None:
        """Show all decisions of a rollout."""
        from raystack.rollout.view import decision_row

        if self._as_json:
            self._json([asdict(decision) for decision in decisions])
        else:
            listing.show_table([decision_row(decision) for decision in decisions])

    def prediction(self, made: Prediction) -> None:
        """Show the end of a prediction: how many rows, and where they are."""
        if self._as_json:
            self._json(asdict(made))
            return
        if made.already:
            say("already complete")
        skipped = f", {made.skipped:,} skipped: see _skipped.jsonl there" if made.skipped else ""
        files = f"{made.parts:,} file{'s' if made.parts > 1 else ''}"
        listing.show_pairs(
            [("model", made.model), ("rows", f"{made.rows:,} in {files}{skipped}"), ("out", made.out)]
        )

    def searched(self, study: "Study") -> None:
        """Show the end of a study: its best trial, where things are, and what to do next."""
        outcome = study.outcome
        if self._as_json:
            best = study.best
            number, point = (best.number, best.point) if best is not None else (None, None)
            found = zip(SEARCHED_KEYS, (study.name, number, point, study.counts), strict=True)
            self._json({**asdict(outcome), **dict(found)})
            return
        self._ended(outcome, study.rows)

    def study(self, study: "Study", limit: int) -> None:
        """Show a study, and its `limit` best trials as a table."""
        if self._as_json:
            self.text(f"{study.json}\n")
            return
        listing.show_pairs(study.rows)
        if table := study.table(limit):
            self.text("\n")
            listing.show_table(table)

    def studies(self, studies: "Sequence[Study]") -> None:
        """Show studies, one a line."""
        rows = [_study_row(study) for study in studies]
        if self._as_json:
            self._json([dict(zip(STUDY_KEYS, row, strict=True)) for row in rows])
        else:
            texts = [
                {
                    key: "-" if value is None else _cell(value)
                    for key, value in zip(STUDY_KEYS, row, strict=True)
                }
                for row in rows
            ]
            self._rows(texts, otherwise="there is no study")

    def config(self, config: RunConfig) -> None:
        """Print a resolved config."""
        if self._as_json:
            self._json(config.model_dump(mode="json"))
        else:
            self.text(dump(config))

    def status(self, status: Status) -> None:
        """Show a status in one line."""
        if self._as_json:
            self._json(asdict(status))
        else:
            self.text(f"{status.line}\n")

    def statuses(self, statuses: Sequence[Status]) -> None:
        """Show statuses as a table."""
        if self._as_json:
            self._json([asdict(status) for status in statuses])
        elif statuses:
            listing.show_table([_status_row(status) for status in statuses])
        else:
            say("there is nothing")

    def submitted(self, status: Status, place: str) -> None:
        """Show the name of a submission and the next commands.

        `place` is the options that lead to it.
        """
        if self._as_json:
            self.status(status)
            return
        addresses = {what: value for what, value in status.links.items() if "://" in value}
        # A schedule that a CronJob keeps is none of KubeRay's objects: its own commands lead there.
        known = status.links if "schedule" in status.links else {**commands(status, place), **addresses}
        listing.show_pairs([("submitted", f"{status.kind}/{status.name}"), *known.items()])

    def diagnosis(self, found: Diagnosis) -> None:
        """Show a diagnosis: cause, remedy and evidence."""
        if self._as_json:
            self._json(asdict(found))
            return
        evidence = (("evidence", line) for line in found.evidence)
        listing.show_pairs([("cause", found.cause), ("remedy", found.remedy), *evidence])

    def logs(self, lines: Iterable[LogLine], *, sources: bool) -> None:
        """Print log lines as they arrive.

        As JSON it is one object a line. With `sources` each line names where it is from.
        """
        for line in lines:
            if self._as_json:
                self.text(json.dumps(asdict(line)) + "\n")
            else:
                self.text(f"{line.source}: {line.text}\n" if sources else f"{line.text}\n")

    def ports(self, ports: "Sequence[ForwardedPort]", *, tokens: bool) -> None:
        """Show the forwarded addresses on this machine by service; Ray's token only with `tokens`."""
        token = next((port.token for port in ports if port.token is not None), None)
        if self._as_json:
            shown = [replace(port, token=port.token if tokens else None) for port in ports]
            self._json([{key: getattr(port, key) for key in PORT_KEYS} for port in shown])
            return
        listing.show_pairs([(port.what, port.url) for port in ports])
        if token is not None and tokens:
            listing.show_pairs([("token", token)])
        if token is not None and not tokens:
            say("the dashboard asks for Ray's token: --token shows it")

    def estimate(self, view: PlanView) -> None:
        """Show what the whole run is expected to take, if the plan has a price or a budget."""
        for what, text in view.rows:
            if what in ("price", "estimate", "budget"):
                say(f"{what}: {text}")

    def costs(self, lines: "Sequence[CostLine]", sums: Iterable[str]) -> None:
        """Show what runs have used, and the sum of each currency."""
        if self._as_json:
            self._json([{key: asdict(line)[key] for key in COST_KEYS} for line in lines])
            return
        rows = [
            {
                "run": line.run,
                "status": line.status,
                "drivers": f"{line.drivers}",
                "used": line.spent.line,
                "without steps": line.idle.line,
            }
            for line in lines
        ]
        self._rows(rows, otherwise="no run has a ledger here")
        for line in sums:
            say(line)

    def leftovers(self, found: "Sequence[Leftover]") -> None:
        """Show what may be deleted, and beside it what is kept, and why."""
        rows = [
            {
                "name": f"{each.kind.lower()}/{each.name}",
                "namespace": each.namespace,
                "why": each.why,
                "idle": each.idle.line if each.idle is not None else "",
            }
            for each in found
            if each.kept is None
        ]
        kept = [each for each in found if each.kept is not None]
        self._rows(rows, otherwise="nothing may be deleted" if kept else "nothing is idle or over")
        for each in kept:
            name, why = f"{each.kind.lower()}/{each.name}", f"{each.why}: " if each.why else ""
            why = f"{each.idle.line} idle, {why}" if each.idle is not None and each.idle.line else why
            say(f"kept: {name} in namespace {each.namespace}: {why}{each.kept}")

    def checks(self, checks: "Sequence[Check]") -> None:
        """Show the checks and their results."""
        if self._as_json:
            self._json([{key: getattr(check, key) for key in CHECK_KEYS} for check in checks])
        else:
            listing.show_table(
                [{"check": check.name, "is": STATES[check.ok], "found": check.found} for check in checks]
            )

    def changes(self, changed: "Mapping[str, Sequence[Change]]") -> None:
        """Show the changes of each object."""
        if self._as_json:
            self._json({name: [asdict(change) for change in every] for name, every in changed.items()})
            return
        for reference, every in changed.items():
            if not every:
                say(f"{reference}: no change")
            for change in every:
                before, after = _apart(change.before, change.after)
                difference = f"{change.path}: {before} -> {after}"
                self.text(f"{reference}: {change.effect}: {difference}; {change.why}\n")

    def findings(self, findings: "Sequence[Finding]") -> None:
        """Print findings, one a line, as editors and CI read them.

        The form is `file:line: error RS301 path: reason; remedy`.
        """
        if self._as_json:
            self._json([asdict(finding) for finding in findings])
            return
        self.text("".join(f"{finding}\n" for finding in findings))
        errors = sum(finding.level == "error" for finding in findings)
        say(f"errors: {errors}, warnings: {len(findings) - errors}" if findings else "nothing found")

    def checkpoints(self, reports: "Sequence[Report]") -> None:
        """Show checkpoints, one a line."""
        if self._as_json:
            self._json([report.as_dict() for report in reports])
        else:
            listing.show_table([_checkpoint_row(report) for report in reports])

    @contextmanager
    def reading(self, total: int) -> Iterator[Any]:
        """Show a bar for `total` bytes; call the result with the size of each piece."""
        with listing.reading(total) as progress:
            yield progress

    def wait(self, handle: JobHandle, *, timeout_s: float | None, follow: bool) -> Status:
        """Print every change and, with `follow`, the driver's log, until the end or the timeout.

        Returns the last status.
        """
        last, reader, said = handle.status(), None, ""
        for last in handle.watch(timeout_s):
            if last.line != said:
                said = last.line
                say(said)
            if follow and last.phase == "running" and (reader is None or not reader.is_alive()):
                reader = threading.Thread(
                    target=_say_log, args=(handle, True), name="raystack-log", daemon=True
                )
                reader.start()
        if reader is not None and last.finished:
            reader.join(LAST_LINES_S)
        elif follow and last.finished:
            with suppress(LaunchError):  # it ended before it had a log, and its status says why
                _say_log(handle, False)
        return last

    def until_interrupted(self) -> None:
        """Sleep until Ctrl-C or SIGTERM."""
        # Ray has installed its own handler by now, and a shell may have SIGINT ignored in background jobs.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            while True:
                signal.pause()

    def _ended(self, outcome: Outcome, found: Sequence[tuple[str, str]]) -> None:
        """Show what was found, then the places and links of an outcome."""
        places = (
            ("checkpoint", outcome.checkpoint),
            ("version", outcome.model_version),
            ("alias", outcome.alias),
        )
        known = ((what, value) for what, value in places if value is not None)
        listing.show_pairs([*found, *known, *outcome.links.items()])
        for note in outcome.notes:
            warn(note)

    def _rows(self, rows: Sequence[Mapping[str, str]], *, otherwise: str) -> None:
        if self._as_json:
            self._json(rows)
        elif rows:
            listing.show_table(rows)
        else:
            say(otherwise)

    def _json(self, value: Any) -> None:
        self.text(strict_json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def commands(status: Status, place: str) -> dict[str, str]:
    """Return the next commands to type, by what they do."""
    name = f"{status.kind}/{status.name}{place}"
    known = {
        "status": f"raystack status {name}",
        "log": f"raystack logs -f {name}",
        "cancel": f"raystack cancel {name}",
    }
    return known if status.kind == "job" else {**known, "connect": f"raystack connect {name}"}


def _say_log(handle: JobHandle, follow: bool) -> None:
    try:
        for line in handle.logs(follow=follow, everything=False):
            say(line.text)
    except RaystackError as error:
        warn(f"the log cannot be followed: {error}")


def _status_row(status: Status) -> dict[str, str]:
    return {
        "name": f"{status.kind}/{status.name}",
        "phase": status.phase,
        "workers": f"{status.ready or 0}/{status.wanted}" if status.wanted is not None else "-",
        "attempt": str(status.attempt),
        "reason": status.reason or "-",
    }


def _study_row(study: "Study") -> tuple[Any, ...]:
    """Return the values of STUDY_KEYS."""
    best, metric = study.best, study.plan.objectives[0].metric
    over = sum(trial.over for trial in study.records)
    value = study.value_of(best) if best is not None else None
    return study.name, study.status, study.plan.trials, over, metric, value, study.folder


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _checkpoint_row(report: "Report") -> dict[str, str]:
    manifest = report.manifest
    if manifest is None:
        known = dict.fromkeys(("samples", "epoch", "workers", "strategy", "size", "weights", "metrics"), "-")
    else:
        epochs = manifest.samples / manifest.dataset_length if manifest.dataset_length else None
        known = {
            "samples": f"{manifest.samples:,}",
            "epoch": f"{epochs:.2f}" if epochs is not None else "",
            "workers": str(manifest.world_size),
            "strategy": manifest.strategy,
            "size": units.size(report.bytes),
            "weights": "yes" if report.weights else "no",
            "metrics": ", ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items()) or "-",
        }
    return {"step": str(report.step), "state": report.state, **known}


def _apart(*values: Any) -> tuple[str, ...]:
    """Return values in short, each from a little before where they differ, if they are long."""
    texts = [
        "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values
    ]
    same = sum(1 for _ in takewhile(lambda pair: len(set(pair)) == 1, zip(*texts, strict=False)))
    start = max(0, same - SHORT // 4) if same > SHORT // 2 and max(map(len, texts)) > SHORT else 0
    shown = [f"{'...' if start else ''}{text[start:]}" for text in texts]
    return tuple(text if len(text) <= SHORT else f"{text[:SHORT]}..." for text in shown)


def _step_row(entry: "Entry") -> dict[str, str]:
    at = datetime.fromtimestamp(entry.at).strftime("%Y-%m-%d %H:%M:%S")
    return {"time": at, "round": entry.round or "-", "step": entry.step, "what": entry.what}


def _move_row(move: "Move") -> dict[str, str]:
    at = datetime.fromtimestamp(move.at).strftime("%Y-%m-%d %H:%M:%S")
    way = f"{move.before or '-'} to {move.version}"
    what = move.what if move.outcome == "done" else f"{move.what}: {move.outcome}"
    alias = move.alias or "-"
    return {"time": at, "alias": alias, "": what, "version": way, "who": move.who, "why": move.why}
