"""Rules on `deletionStrategy`: what remains of a RayJob after its end."""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, REFUSED, Breach, rule
from raystack.kuberay.lint.subject import JobSubject
from raystack.plan.kuberay.facts import SINCE

ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
RULES_SINCE = SINCE["job"]["deletionStrategy.deletionRules"]
FAILED_SINCE = SINCE["job"]["deletionStrategy.deletionRules.*.condition.jobDeploymentStatus"]
Condition = tuple[str, str]


@rule(
    "RS104",
    on=JobSubject,
    says="deletionStrategy holds either deletionRules, at least one, or both of onSuccess and onFailure",
    why=REFUSED,
    remedy="give deletionRules alone",
)
def form(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    strategy, rules = job.node["deletionStrategy"], job.rules.present
    if not strategy.present or (rules and not operator.at_least(RULES_SINCE)):
        return
    legacy = [strategy[name].present for name in ("onSuccess", "onFailure")]
    # The schema asks for a rule.
    if (rules and any(legacy)) or (not rules and not all(legacy)):
        yield Breach(strategy)


@rule(
    "RS105",
    on=JobSubject,
    says="a deletion condition has either jobStatus or jobDeploymentStatus",
    why=REFUSED,
    remedy="give one of them",
)
def one_condition(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    for each in _rules(job, operator):
        condition = each["condition"]
        if condition["jobStatus"].present == condition["jobDeploymentStatus"].present:
            yield Breach(condition)


@rule(
    "RS404",
    on=JobSubject,
    says="deletionRules exclude shutdownAfterJobFinishes, and with it suspending, a ttl, and Kueue",
    why=INVALID,
    remedy="drop shutdownAfterJobFinishes, or deletionStrategy",
    since="1.5.0",
)
def one_way(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    if job.rules.items and job.shuts_down:
        yield Breach(job.rules)


@rule(
    "RS405",
    on=JobSubject,
    says="a cluster that was selected is not deleted, and workers are not where Ray's autoscaler runs",
    why=INVALID,
    remedy="choose another policy",
    since="1.3.0",
)
def what_may_go(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    for policy in _policies(job):
        selected = job.selector.fields and policy.text in ("DeleteCluster", "DeleteWorkers")
        if selected or (policy.text == "DeleteWorkers" and job.cluster.autoscaling):
            yield Breach(policy)


@rule(
    "RS406",
    on=JobSubject,
    says="onSuccess and onFailure each have a policy, and DeleteNone excludes shutdownAfterJobFinishes",
    why=INVALID,
    remedy="give both policies; drop shutdownAfterJobFinishes beside DeleteNone",
    since="1.3.0",
)
def legacy(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    for name in ("onSuccess", "onFailure"):
        end = job.node.at("deletionStrategy", name)
        if end.present and (
            not end["policy"].present or (end["policy"].text == "DeleteNone" and job.shuts_down)
        ):
            yield Breach(end["policy"])


@rule(
    "RS417",
    on=JobSubject,
    says="there is one deletion rule for each policy and end",
    why=INVALID,
    remedy="drop one of them",
    since="1.5.0",
)
def rules_once(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    seen: set[tuple[Condition, str]] = set()
    for each in _rules(job, operator):
        key = (_end(each), each["policy"].text)
        if key in seen:
            yield Breach(each)
        seen.add(key)


@rule(
    "RS418",
    on=JobSubject,
    says="after the same end workers go first, then the cluster, then the RayJob",
    why=INVALID,
    remedy="order their ttlSeconds so",
    since="1.5.0",
)
def rules_in_order(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    rules = _rules(job, operator)
    for end in dict.fromkeys(map(_end, rules)):
        latest = 0
        for policy in ORDER:
            for each in rules:
                if _end(each) == end and each["policy"].text == policy:
                    ttl = each.at("condition", "ttlSeconds")
                    if (ttl.number or 0) < latest:
                        yield Breach(ttl)
                    latest = max(latest, ttl.number or 0)


def _rules(job: JobSubject, operator: Operator) -> list[Node]:
    """Return the rules whose conditions the operator knows."""
    if operator.at_least(FAILED_SINCE):
        return job.rules.items
    return [each for each in job.rules.items if not each.at("condition", "jobDeploymentStatus").present]


def _policies(job: JobSubject) -> Iterator[Node]:
    yield from job.node.find("deletionStrategy.onSuccess.policy")
    yield from job.node.find("deletionStrategy.onFailure.policy")
    yield from job.node.find("deletionStrategy.deletionRules.*.policy")


def _end(rule: Node) -> Condition:
    return rule.at("condition", "jobStatus").text, rule.at("condition", "jobDeploymentStatus").text
