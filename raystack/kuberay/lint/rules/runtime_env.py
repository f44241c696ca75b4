"""Rules on runtime environments, of a job and of applications: what Ray refuses of them."""

import re
from collections.abc import Iterator, Mapping

from raystack.errors import nearest
from raystack.kuberay.lint.forms import is_late
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.serve_config import ServeConfig
from raystack.kuberay.lint.subject import JobSubject, ObjectSubject
from raystack.kuberay.lint.texts import inside

FIELDS: Mapping[str, tuple[type, ...]] = {
    "working_dir": (str,),
    "py_modules": (list,),
    "excludes": (list,),
    "env_vars": (dict,),
    "pip": (list, str, dict),
    "uv": (list, str, dict),
    "conda": (str, dict),
    "config": (dict,),
    **dict.fromkeys(("container", "image_uri", "py_executable", "worker_process_setup_hook"), (object,)),
    **dict.fromkeys(("eager_install", "java_jars", "mpi", "nsight", "rocprof_sys"), (object,)),
}
CALLED: Mapping[type, str] = {str: "a text", list: "a list", dict: "a mapping"}
INSTALLERS = ("pip", "uv", "conda")
ARCHIVE = re.compile(r"\.(zip|tar\.gz|tgz|tar\.xz|jar|whl)\b")


@rule(
    "RS742",
    on=JobSubject,
    says="runtimeEnvYAML is what Ray takes as a runtime environment",
    why="the job fails",
    remedy="correct it",
)
def of_job(job: JobSubject, operator: Operator) -> Iterator[Breach]:
    yield from _faults(inside(job.node["runtimeEnvYAML"]))


@rule(
    "RS910",
    on=ObjectSubject,
    kinds=("RayService",),
    says="runtime_env is what Ray takes as a runtime environment",
    why="the application fails to deploy",
    remedy="correct it",
)
def of_applications(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    for environment in ServeConfig.of(resource.spec["serveConfigV2"]).runtime_envs():
        yield from _faults(environment)


def _faults(environment: Node) -> Iterator[Breach]:
    for name, node in environment.fields.items():
        kinds = FIELDS.get(name)
        if kinds is None:
            meant = nearest(name, FIELDS)
            if meant is not None:
                says = f"a runtime environment has no field {name}"
                yield Breach(node, says, f"did you mean {meant}?", level="warning")
        elif not isinstance(node.value, kinds) and not is_late(node):
            called = " or ".join(CALLED[kind] for kind in kinds)
            yield Breach(node, f"{name} is {called}", f"write it as {CALLED[kinds[0]]}")
    for name, node in environment["env_vars"].fields.items():
        if not isinstance(node.value, str):
            text = str(node.value).lower() if isinstance(node.value, bool) else node.value
            yield Breach(node, f"the variable {name} is text", f'put it in quotes: "{text}"')
    installers = [environment[name] for name in INSTALLERS if environment[name].present]
    for node in installers[1:]:
        says = f"a runtime environment has one of {', '.join(INSTALLERS)}"
        yield Breach(node, says, f"drop it, or {installers[0].keys[-1]}")
    for place in [environment["working_dir"], *environment["py_modules"].items]:
        there = "://" in place.text and not place.text.startswith("local://")
        if there and not ARCHIVE.search(place.text) and not is_late(place):
            says = "the address is that of an archive, such as .zip"
            yield Breach(place, says, "name the archive")
