"""Life of a run, from start to retry and resume: combinations that KubeRay rejects or ignores."""

import re
from collections.abc import Iterator

from raystack.config.kuberay import KubeRay
from raystack.config.lifecycle import Lifetime
from raystack.errors import Problem
from raystack.plan.kuberay.facts import LABEL, LABEL_KEY
from raystack.plan.kuberay.schedule import schedule_mistake
from raystack.plan.kuberay.shape import DRIVEN, Form


def life_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    """Yield all conflicts in the object's life cycle."""
    yield from _label_problems(target)
    yield from _availability_problems(target, form)
    if form in DRIVEN:
        yield from _submission_problems(target, form)
        yield from _lifetime_problems(target)
    if form == "cron":
        yield from _cron_problems(target)
    if form == "service":
        yield from _upgrade_problems(target)


def _submission_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    mode, where = target.submission.mode, "target.submission.mode"
    if mode == "InteractiveMode":
        if target.submission.retries:
            rule = "a job that you submit yourself is not tried again"
            yield Problem(
                "target.submission.retries",
                rule=rule,
                got=str(target.submission.retries),
                remedy="set it to 0",
            )
        if form == "cron":
            yield Problem(
                where,
                rule="nobody is there to submit a periodic job",
                got=mode,
                remedy="set it to K8sJobMode",
            )
    if form == "katib" and mode != "K8sJobMode":
        rule = "Katib reads the metrics from the pod of the submitter, which only K8sJobMode has"
        yield Problem(where, rule=rule, got=mode, remedy="set it to K8sJobMode")
    if mode == "SidecarMode" and target.high_availability.backend != "none":
        rule = "the submitter beside the head ends with it, so that a head that comes back has no job"
        yield Problem(
            where,
            rule=rule,
            got=mode,
            remedy="set it to K8sJobMode, or target.high_availability.backend=none",
        )


def _lifetime_problems(target: KubeRay) -> Iterator[Problem]:
    rules, where = target.lifetime.rules, "target.lifetime.rules"
    if not rules:
        return
    if target.lifetime.ttl_s != Lifetime().ttl_s:
        yield Problem(
            "target.lifetime.ttl_s",
            rule="rules say themselves when something is deleted",
            remedy="drop it, or drop the rules",
        )
    if target.autoscaling.enabled and any(rule.policy == "DeleteWorkers" for rule in rules):
        yield Problem(
            where,
            rule="the autoscaler would bring the deleted workers back",
            got="DeleteWorkers",
            remedy="use DeleteCluster",
        )
    for after in ("SUCCEEDED", "FAILED"):
        own = [rule for rule in rules if rule.after == after]
        policies = [rule.policy for rule in own]
        if double := next((policy for policy in policies if policies.count(policy) > 1), None):
            yield Problem(
                where,
                rule=f"should have one rule of a kind after {after}",
                got=f"{double} twice",
                remedy="drop one",
            )
        order = [
            ("DeleteWorkers", "DeleteCluster"),
            ("DeleteCluster", "DeleteSelf"),
            ("DeleteWorkers", "DeleteSelf"),
        ]
        times = {rule.policy: rule.ttl_s for rule in own}
        for first, then in order:
            if first in times and then in times and times[first] > times[then]:
                got = f"{first} after {times[first]} s, {then} after {times[then]} s"
                yield Problem(
                    where,
                    rule=f"after {after}, {first} should come before {then}",
                    got=got,
                    remedy=f"raise ttl_s of {then}",
                )


def _availability_problems(target: KubeRay, form: Form) -> Iterator[Problem]:
    state = target.high_availability
    if (
        state.backend == "rocksdb"
        and form == "service"
        and state.claim is None
        and target.upgrade.kind != "None"
    ):
        rule = "the volume that KubeRay makes belongs to one cluster, and an upgrade makes another"
        yield Problem(
            "target.high_availability.claim",
            rule=rule,
            remedy="name a PersistentVolumeClaim, or set target.upgrade.kind=None",
        )


def _upgrade_problems(target: KubeRay) -> Iterator[Problem]:
    upgrade = target.upgrade
    if upgrade.kind != "NewClusterWithIncrementalUpgrade":
        return
    if not target.autoscaling.enabled:
        rule = "moving traffic in steps needs the autoscaler, which moves the pods with it"
        yield Problem(
            "target.upgrade.kind", rule=rule, got=upgrade.kind, remedy="set target.autoscaling.enabled=true"
        )
    if not 0 < upgrade.step_percent <= upgrade.surge_percent:
        rule = f"should be at least 1 and at most surge_percent={upgrade.surge_percent}"
        yield Problem(
            "target.upgrade.step_percent",
            rule=rule,
            got=str(upgrade.step_percent),
            remedy="lower it, or raise surge_percent",
        )


def _cron_problems(target: KubeRay) -> Iterator[Problem]:
    schedule, where = target.cron.schedule, "target.cron.schedule"
    remedy = "write five fields, e.g. '0 3 * * 1' for Mondays at three, or @daily"
    if schedule is None:
        yield Problem(where, rule="says when to train, and is left out", remedy=remedy)
    elif "TZ" in schedule:
        yield Problem(where, rule="holds no time zone", got=schedule, remedy="set target.cron.time_zone")
    elif (rule := schedule_mistake(schedule)) is not None:
        yield Problem(where, rule=rule, got=schedule, remedy=remedy)
    zone = target.cron.time_zone
    if zone is not None and not re.fullmatch(r"[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", zone):
        yield Problem(
            "target.cron.time_zone", rule="should be an IANA name", got=zone, remedy="e.g. Europe/Berlin"
        )


def _label_problems(target: KubeRay) -> Iterator[Problem]:
    """Yield invalid labels, which Kubernetes would reject one by one and only after the plan."""
    found = {
        "target.labels": target.labels,
        "target.head.labels": target.head.labels,
        "target.worker.labels": target.worker.labels,
        "target.head.node_selector": target.head.node_selector,
        "target.worker.node_selector": target.worker.node_selector,
    }
    for where, labels in found.items():
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key) or (value and not LABEL.fullmatch(value)):
                rule = (
                    "a label is prefix/name: at most 63 letters, digits, '-', '_' and '.', and so is its"
                    " value"
                )
                yield Problem(where, rule=rule, got=f"{key}: {value}")
    for key in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if key in target.annotations:
            yield Problem(
                "target.annotations",
                rule="KubeRay keeps it from former days",
                got=key,
                remedy="use target.high_availability",
            )
