"""Rules of the API server on the containers of pods, which a CRD does not have."""

from collections.abc import Iterator

from raystack.kuberay.lint.forms import DNS_1123, ENV_NAME, PORT_NAME, SUBDOMAIN, misfit
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, REFUSED, Breach, rule
from raystack.kuberay.lint.subject import PodSubject

HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
REFERRED = ("serviceAccountName", "priorityClassName", "runtimeClassName", "imagePullSecrets.*.name")
"""Names of other objects in a pod."""
PROBES = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")


@rule(
    "RS111",
    on=PodSubject,
    says="every container has a name of its own",
    why=REFUSED + ", or the pods",
    remedy="name it",
)
def names(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    seen: set[str] = set()
    for container in pod.containers:
        name = container["name"]
        if name.text in seen or name.value == "":
            yield Breach(name)
        elif name.text in pod.taken:
            yield Breach(name, says=f"the operator adds a container called {name.text}", remedy="rename it")
        seen |= {name.text} - {""}


@rule(
    "RS140",
    on=PodSubject,
    says="every container has an image",
    why=NO_PODS,
    remedy="give it, without spaces around it",
)
def images(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for container in pod.containers:
        image = container["image"]
        if not image.present or (isinstance(image.value, str) and image.text.strip() != (image.text or None)):
            yield Breach(image)
    # The operator gives one to the autoscaler unless an empty one is set.
    own = (each["image"] for each in pod.further if each.keys[-1] == "autoscalerOptions")
    yield from (Breach(image) for image in own if image.value == "")


@rule(
    "RS144",
    on=PodSubject,
    says="a port is a number from 1 to 65535, its name at most 15 lower-case letters, digits and dashes",
    why=NO_PODS,
    remedy="shorten or correct it",
)
def ports(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for container in pod.containers:
        for port in container["ports"].items:
            name = port["name"]
            if misfit(name, PORT_NAME):
                says = "the name of a port has at most 15 lower-case letters, digits and dashes, and a letter"
                yield Breach(name, says=f"{says} (got {name.text})")
            for key, least in (("containerPort", 1), ("hostPort", 0)):
                number = port[key].number
                if number is not None and not least <= number < 65536:
                    yield Breach(port[key], says="a port is a number from 1 to 65535")


@rule(
    "RS145",
    on=PodSubject,
    says="names of containers and volumes are lower case, digits and dashes, at most 63",
    why=NO_PODS,
    remedy="rename it",
)
def forms(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for path in REFERRED:
        for name in pod.spec.find(path):
            if misfit(name, SUBDOMAIN):
                says = f"{name.text!r} is no name of an object: lower case, digits, dashes and dots"
                yield Breach(name, says=says)
    for named in [*pod.containers, *pod.spec["volumes"].items]:
        if misfit(named["name"], DNS_1123):
            yield Breach(named["name"])
    for container in [*pod.containers, *pod.further]:
        for env in container["env"].items:
            if isinstance(env["name"].value, str) and not ENV_NAME.fullmatch(env["name"].text):
                yield Breach(env["name"], says="the name of a variable is not empty and has no =")


@rule(
    "RS148",
    on=PodSubject,
    says="a variable has a value or a source, and a probe has one way to ask",
    why=NO_PODS,
    remedy="keep one of them",
)
def one_of(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    for container in [*pod.containers, *pod.further]:
        for env in container["env"].items:
            sources = env["valueFrom"].fields
            if env["valueFrom"].present and (env["value"].text or len(sources) != 1):
                yield Breach(env["valueFrom"], says="a variable has a value or one source")
        for path in PROBES:
            yield from (Breach(probe) for probe in container.find(path) if _handlers(probe) != 1)
    for volume in pod.spec["volumes"].items:
        # Without a source it is an emptyDir.
        if len(volume.fields.keys() - {"name"}) > 1:
            yield Breach(volume, says="a volume has one source")


def _handlers(probe: Node) -> int:
    return sum(name in probe.fields for name in HANDLERS)
