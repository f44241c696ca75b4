"""Rules of the API server on where pods may be placed: affinity, tolerations, and spreading."""

from collections.abc import Iterator

from raystack.kuberay.lint.forms import misfit
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, Breach, rule
from raystack.kuberay.lint.rules.choices import PREFERRED, REQUIRED, SELECTORS, TERMS
from raystack.kuberay.lint.subject import PodSubject
from raystack.plan.kuberay.facts import LABEL, LABEL_KEY

TERM = f"affinity.nodeAffinity.{REQUIRED}"
KINDS = ("nodeAffinity", "podAffinity", "podAntiAffinity")
TOPOLOGY = (
    "topologySpreadConstraints.*",
    *(f"affinity.{kind}.{REQUIRED}.*" for kind in KINDS[1:]),
    *(f"affinity.{kind}.{PREFERRED}.*.podAffinityTerm" for kind in KINDS[1:]),
)


@rule(
    "RS152",
    on=PodSubject,
    says="an expression has the values that its operator takes",
    why=NO_PODS,
    remedy="correct it",
)
def expressions(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for path in sorted(TERMS | SELECTORS):
        for each in pod.spec.find(f"{path}.matchExpressions.*"):
            yield from _expression(each, of_labels=path in SELECTORS)
    for toleration in pod.spec["tolerations"].items:
        key, value = toleration["key"], toleration["value"]
        if misfit(key, LABEL_KEY):
            yield Breach(key, says=f"{key.text!r} is no key of a taint")
        if misfit(value, LABEL):
            yield Breach(value, says=f"{value.text!r} is no value of a taint")


@rule(
    "RS153",
    on=PodSubject,
    says="affinity and spreading say where, how much, and by what",
    why=NO_PODS,
    remedy="give it",
)
def placement(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for required in pod.spec.find(TERM):
        if not required["nodeSelectorTerms"].items:
            yield Breach(required["nodeSelectorTerms"], says="nodeSelectorTerms has a term")
    for kind in KINDS:
        for weight in pod.spec.find(f"affinity.{kind}.{PREFERRED}.*.weight"):
            if weight.number is not None and not 1 <= weight.number <= 100:
                yield Breach(weight, says="a weight is from 1 to 100", remedy="correct it")
    for path in TOPOLOGY:
        for each in pod.spec.find(path):
            if each["topologyKey"].value == "":
                yield Breach(each["topologyKey"], says="topologyKey names a label of nodes")
    for spread in pod.spec["topologySpreadConstraints"].items:
        for name in ("maxSkew", "minDomains"):
            if (number := spread[name].number) is not None and number < 1:
                yield Breach(spread[name], says=f"{name} is at least 1", remedy="correct it")


def _expression(each: Node, *, of_labels: bool) -> Iterator[Breach]:
    word, values = each["operator"].text, each["values"]
    if word in ("In", "NotIn") and not values.items:
        yield Breach(values, says=f"{word} has values", remedy="give one")
    if word in ("Exists", "DoesNotExist") and values.items:
        yield Breach(values, says=f"{word} has no values", remedy="drop them")
    if word in ("Gt", "Lt") and not (len(values.items) == 1 and values[0].text.lstrip("-").isdecimal()):
        yield Breach(values, says=f"{word} has one whole number, in quotes")
    key = each["key"]
    if misfit(key, LABEL_KEY):
        yield Breach(key, says=f"{key.text!r} is no name of a label")
    for value in values.items if of_labels else ():
        if misfit(value, LABEL):
            yield Breach(value, says=f"{value.text!r} is no value of a label")
