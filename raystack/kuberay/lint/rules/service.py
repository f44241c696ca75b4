"""Rules on a RayService: its application and its upgrades."""

from collections.abc import Iterator

import yaml

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ObjectSubject
from raystack.plan.kuberay.facts import SINCE

BY_STEPS = "NewClusterWithIncrementalUpgrade"
STEPS_SINCE = SINCE["service"]["spec.upgradeStrategy.clusterUpgradeOptions"]
UPGRADES = ("NewCluster", BY_STEPS, "None")


@rule(
    "RS503",
    on=ObjectSubject,
    kinds=("RayService",),
    says="the head's service has no name of its own",
    why=INVALID,
    remedy="drop headService.metadata.name",
)
def head_service(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    name = resource.spec.at("rayClusterConfig", "headGroupSpec", "headService", "metadata", "name")
    if name.text:
        yield Breach(name)


@rule(
    "RS504",
    on=ObjectSubject,
    kinds=("RayService",),
    says=f"upgradeStrategy.type is one of {', '.join(UPGRADES)}",
    why=INVALID,
    remedy="choose one of them",
)
def upgrade_type(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    kind = resource.spec.at("upgradeStrategy", "type")
    if kind.present and kind.text not in UPGRADES:
        yield Breach(kind)
    elif kind.text == BY_STEPS and not operator.at_least(STEPS_SINCE):
        says = f"upgrades in steps came with KubeRay {STEPS_SINCE}, and the operator is {operator.version}"
        yield Breach(kind, says=says, remedy="upgrade KubeRay, or drop it")


@rule(
    "RS506",
    on=ObjectSubject,
    kinds=("RayService",),
    says=(
        "an incremental upgrade has autoscaling, a gateway class, an interval, and 0 <= stepSizePercent <="
        " maxSurgePercent <= 100"
    ),
    why=INVALID,
    remedy="set enableInTreeAutoscaling and upgradeStrategy.clusterUpgradeOptions",
    since="1.5.0",
)
def incremental(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    strategy = resource.spec["upgradeStrategy"]
    if strategy["type"].text != BY_STEPS:
        return
    autoscaling, options = (
        resource.spec.at("rayClusterConfig", "enableInTreeAutoscaling"),
        strategy["clusterUpgradeOptions"],
    )
    if not autoscaling.true:
        yield Breach(autoscaling)
    if not options.present:
        yield Breach(options)
        return
    surge, step, interval = (
        options[name] for name in ("maxSurgePercent", "stepSizePercent", "intervalSeconds")
    )
    most = 100 if surge.number is None else surge.number
    if not 0 <= most <= 100:
        yield Breach(surge)
    if step.number is None or not 0 <= step.number <= most:
        yield Breach(step)
    if (interval.number or 0) <= 0:
        yield Breach(interval)
    if not options["gatewayClassName"].text:
        yield Breach(options["gatewayClassName"])


@rule(
    "RS722",
    on=ObjectSubject,
    kinds=("RayService",),
    says="serveService is for upgrades that are not incremental",
    why="the incremental upgrade makes services of its own and leaves it alone",
    remedy="drop serveService",
    level="warning",
    since="1.5.0",
)
def serve_service(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    kind, service = resource.spec.at("upgradeStrategy", "type"), resource.spec["serveService"]
    if kind.text == BY_STEPS and service.present:
        yield Breach(service)


@rule(
    "RS723",
    on=ObjectSubject,
    kinds=("RayService",),
    says="the thresholds of unhealthy seconds are gone",
    why="they are still accepted and do nothing",
    remedy="drop it",
    level="warning",
)
def thresholds(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for name in ("serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"):
        if resource.spec[name].present:
            yield Breach(resource.spec[name])


@rule(
    "RS727",
    on=ObjectSubject,
    kinds=("RayService",),
    says="serveConfigV2 is the text of a mapping in YAML",
    why="no application is deployed, and the service never gets ready",
    remedy="write it as a block, `serveConfigV2: |`",
)
def serve_config(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    config = resource.spec["serveConfigV2"]
    try:
        value = yaml.safe_load(config.text)
    except yaml.YAMLError:
        value = None
    if config.value not in (None, "") and not isinstance(value, dict):
        yield Breach(config)
