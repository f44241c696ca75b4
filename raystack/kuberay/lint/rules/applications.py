"""Rules on the applications of a RayService: what Ray Serve does with the text of `serveConfigV2`."""

import re
from collections.abc import Iterator
from itertools import pairwise

from raystack.kuberay.lint.forms import is_late
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.serve_config import TYPES, ServeConfig
from raystack.kuberay.lint.subject import ClusterSubject, GroupSubject, ObjectSubject

PORT = 8000
"""Port that the operator takes for the proxies', unless a container has one that is named `serve`."""
MOST = 100
"""Bound of `num_replicas: auto`; otherwise it is 1, as the least number is."""
PROXIES = ("Disabled", "HeadOnly", "EveryNode")
ROUTE = re.compile(r"/[^{}]*[^{}/]")
IMPORT_PATH = re.compile(r"[^:]+[.:][^:]+")
REFUSED = "Ray Serve refuses the config, the operator tries again and again, and nothing is served"
FAILS = "the application fails to deploy"


@rule(
    "RS901",
    on=ObjectSubject,
    kinds=("RayService",),
    says="serveConfigV2 has what Ray Serve requires, as the type that it takes",
    why=REFUSED,
    remedy="give it",
)
def required(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    config = _config(resource)
    for part in config.parts():
        for name in part.needed:
            if not part.node[name].present and name not in part.meant.values():
                yield Breach(part.node[name], f"{name} is required")
        for name, kind in part.fields.items():
            node = part.node[name]
            if kind and node.present and not isinstance(node.value, TYPES[kind]) and not is_late(node):
                yield Breach(node, f"{name} is a {kind}", f"write it as a {kind}")
    proxies = config.node["proxy_location"]
    if proxies.present and proxies.value not in PROXIES and not is_late(proxies):
        yield Breach(proxies, f"proxy_location is one of {', '.join(PROXIES)}", "choose one of them")


@rule(
    "RS902",
    on=ObjectSubject,
    kinds=("RayService",),
    says="applications have names and routes of their own, and no host or port",
    why=REFUSED,
    remedy="give it another one",
)
def told_apart(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    applications = _config(resource).applications
    for field, default in (("name", "default"), ("route_prefix", "/")):
        seen = set()
        for application in applications:
            node = application[field]
            # An application with a route of null is called by others alone.
            if not node.present and field in (application.value or {}):
                continue
            said = node.value if node.present else default
            if node.value == "" and field == "name":
                yield Breach(node, "an application's name is not empty", "name it")
            elif said in seen and not is_late(node):
                yield Breach(node, f"two applications have the {field} {said}")
            seen.add(str(said))
    for application in applications:
        for field in ("host", "port"):
            if application[field].present:
                says = f"the {field} is that of all applications"
                yield Breach(application[field], says, f"move it to http_options.{field}")


@rule(
    "RS903",
    on=ObjectSubject,
    kinds=("RayService",),
    says="import_path is module:attribute",
    why="Ray Serve cannot import it, and nothing is served",
    remedy="name the module and the application in it, e.g. serving.app:app",
)
def importable(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for application in _config(resource).applications:
        path = application["import_path"]
        if path.text and not IMPORT_PATH.fullmatch(path.text) and not is_late(path):
            yield Breach(path)
        elif re.search(r"\.py\b|/", path.text) and not is_late(path):
            says = "import_path is a module of Python, and not a file"
            yield Breach(path, says, "write dots, and no .py")


@rule(
    "RS904",
    on=ObjectSubject,
    kinds=("RayService",),
    says="a route begins with /, and has none at its end and no wildcard",
    why=FAILS,
    remedy="write it as /name",
)
def routes(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for application in _config(resource).applications:
        route = application["route_prefix"]
        right = route.text == "/" or ROUTE.fullmatch(route.text)
        if isinstance(route.value, str) and not right and not is_late(route):
            yield Breach(route)


@rule(
    "RS905",
    on=ObjectSubject,
    kinds=("RayService",),
    says="a deployment has a number of replicas, or bounds of it",
    why=REFUSED,
    remedy="drop num_replicas, or autoscaling_config",
)
def replicas(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for deployment in _config(resource).deployments:
        number, bounds = deployment["num_replicas"], deployment["autoscaling_config"]
        if not number.present or number.value == "auto" or is_late(number):
            continue
        if bounds.present:
            yield Breach(number)
        elif number.number is None or number.number < 1:
            yield Breach(number, "num_replicas is 1 or more, or auto", "correct it")


@rule(
    "RS906",
    on=ObjectSubject,
    kinds=("RayService",),
    says="min_replicas <= initial_replicas <= max_replicas",
    why=FAILS,
    remedy="correct them",
)
def bounds(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for deployment in _config(resource).deployments:
        config = deployment["autoscaling_config"]
        most = MOST if deployment["num_replicas"].value == "auto" else 1
        said = {"min_replicas": 1, "initial_replicas": None, "max_replicas": most}
        numbers = {name: config[name].number if config[name].present else said[name] for name in said}
        known = [(name, number) for name, number in numbers.items() if number is not None]
        for (lower, least), (upper, number) in pairwise(known):
            if config.present and least > number:
                yield Breach(config[upper], f"{lower} <= {upper}, and {least} > {number}")


@rule(
    "RS907",
    on=ObjectSubject,
    kinds=("RayService",),
    says="Ray Serve has the field",
    why="it drops it without a word",
    remedy="check its spelling",
    level="warning",
)
def known(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for part in _config(resource).parts():
        for name, meant in part.meant.items():
            needed = meant in part.needed and not part.node[meant].present
            yield Breach(
                part.node[name],
                f"Ray Serve has no field {name}",
                f"did you mean {meant}?",
                level="error" if needed else None,
            )


@rule(
    "RS908",
    on=ObjectSubject,
    kinds=("RayService",),
    says="a working_dir and py_modules are addresses of archives",
    why=REFUSED,
    remedy="give the address of a .zip, such as https:// or s3://, or put the code into the image",
)
def remote(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for environment in _config(resource).runtime_envs():
        for place in [environment["working_dir"], *environment["py_modules"].items]:
            if place.text and "://" not in place.text and not is_late(place):
                yield Breach(place)


@rule(
    "RS909",
    on=ClusterSubject,
    kinds=("RayService",),
    says="Ray Serve's proxies listen where the operator and its service look for them",
    why="the service reaches nothing",
    remedy="give http_options.port, and the port named serve of each Ray container, the same number",
)
def reached(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    config = ServeConfig.of(cluster.document.root.at("spec", "serveConfigV2"))
    options = config.node["http_options"]
    if options["host"].text in ("127.0.0.1", "localhost"):
        says = "Ray Serve's proxies listen on all addresses of a pod"
        yield Breach(options["host"], says, "drop it, or write 0.0.0.0")
    port = PORT if options["port"].number is None else options["port"].number
    if not config.applications or is_late(options["port"]):
        return
    for group in cluster.groups:
        served = _served(group)
        if (PORT if served is None else served.number) != port:
            told = f"the proxies listen at {port}, and the operator looks for them at "
            yield Breach(served or options["port"], f"{told}{served.number if served else PORT}")
            return


def _config(resource: ObjectSubject) -> ServeConfig:
    return ServeConfig.of(resource.spec["serveConfigV2"])


def _served(group: GroupSubject) -> Node | None:
    """Return the number of the port that is named `serve`."""
    ports = group.ray["ports"].items
    return next((port["containerPort"] for port in ports if port["name"].text == "serve"), None)
