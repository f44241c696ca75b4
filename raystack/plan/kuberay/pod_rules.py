"""Rules on the pods of a run or a service: what cannot be placed, and what is requested without effect."""

from collections.abc import Iterator

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.machines import Gpu
from raystack.errors import Problem
from raystack.plan.accelerators import ACCELERATORS
from raystack.plan.kuberay.asked import Asked
from raystack.plan.kuberay.shape import DRIVEN, Form


def pod_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    """Yield what cannot be placed, and what is requested without effect."""
    if form != "service" and config.resources.workers == "inline":
        rule = "inline trains in the driver's process, on the head pod, which keeps its cores for Ray"
        yield Problem("resources.workers", rule=rule, got="inline", remedy="set resources.workers=1")
    yield from core_problems(target, wanted)
    yield from _scaling_problems(config, target, form, wanted)
    yield from gpu_problems(target, form, wanted)


def core_problems(target: KubeRay, wanted: Asked) -> Iterator[Problem]:
    if target.worker.cpus is not None and target.worker.cpus < wanted.cpus:
        rule = f"a worker pod needs {wanted.cpus:g} cores for what runs in it"
        yield Problem(
            "target.worker.cpus",
            rule=rule,
            got=f"{target.worker.cpus:g}",
            remedy="leave it out, or ask for less in resources",
        )


def _scaling_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    scaling = target.autoscaling
    yield from least_problems(config, target, form, wanted)
    if not scaling.enabled:
        if scaling.max_workers is not None:
            rule = "takes effect only with the autoscaler"
            yield Problem(
                "target.autoscaling.max_workers", rule=rule, remedy="set target.autoscaling.enabled=true"
            )
        return
    if form != "service" and config.resources.placement == "STRICT_PACK":
        rule = "STRICT_PACK puts all workers into one pod, so that there is nothing to scale"
        yield Problem(
            "target.autoscaling.enabled",
            rule=rule,
            remedy="set resources.placement=PACK, or target.autoscaling.enabled=false",
        )
    elif form in ("job", "cron", "katib") and wanted.least == wanted.most and scaling.min_workers is None:
        rule = (
            "a run with a fixed number of workers needs all of them from the start, so that there is nothing"
            " to scale"
        )
        remedy = f"set resources.workers=[1,{wanted.most}], or target.autoscaling.enabled=false"
        yield Problem(
            "target.autoscaling.enabled", rule=rule, got=f"resources.workers={wanted.most}", remedy=remedy
        )
    if scaling.max_workers is not None and scaling.max_workers < wanted.pods:
        rule = f"the {'replicas need' if form == 'service' else 'run may use'} {wanted.pods} worker pods"
        yield Problem(
            "target.autoscaling.max_workers",
            rule=rule,
            got=str(scaling.max_workers),
            remedy=f"set it to at least {wanted.pods}",
        )


def least_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    """Yield what is wrong with the fewest pods of the run's own group."""
    where, fewest = "target.autoscaling.min_workers", target.autoscaling.min_workers
    if fewest is None:
        return
    if not target.autoscaling.enabled:
        remedy = "set target.autoscaling.enabled=true"
        yield Problem(where, rule="takes effect only with the autoscaler", remedy=remedy)
    elif form in DRIVEN and fewest < wanted.least and not config.resources.wait_s:
        rule = f"the run starts with {wanted.least} workers, and does not wait for them"
        yield Problem(where, rule=rule, got=str(fewest), remedy="set resources.wait_s, e.g. to 1800")
    if fewest > wanted.most:
        rule = f"there are at most {wanted.most}"
        yield Problem(where, rule=rule, got=str(fewest), remedy="lower it")


def gpu_problems(target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    gpu = target.gpu
    amount = "serving.gpus_per_replica" if form == "service" else "resources.gpus_per_worker"
    if not wanted.gpus:
        if gpu != Gpu():
            rule = f"takes effect only with GPUs, and {amount} is 0"
            yield Problem("target.gpu", rule=rule, remedy=f"set {amount}=1, or drop the section")
        if wanted.accelerator is not None:
            rule = "is the type of a GPU, and the workers have none"
            yield Problem(
                "resources.accelerator_type", rule=rule, got=wanted.accelerator, remedy=f"set {amount}=1"
            )
        return
    if gpu.share in ("time-slice", "mps") and wanted.gpus > 1:
        rule = f"NVIDIA's device plugin gives a pod one shared GPU, and a worker pod needs {wanted.gpus}"
        yield Problem(
            "target.gpu.share",
            rule=rule,
            got=gpu.share,
            remedy="set resources.placement=PACK, which is a pod for each worker",
        )
    named = gpu.model or target.worker.node_selector or gpu != Gpu()
    if wanted.accelerator is not None and wanted.accelerator not in ACCELERATORS and not named:
        rule = "no node label is known for it, so that pods could start beside other GPUs"
        remedy = "set target.gpu.model or target.worker.node_selector"
        yield Problem("resources.accelerator_type", rule=rule, got=wanted.accelerator, remedy=remedy)
