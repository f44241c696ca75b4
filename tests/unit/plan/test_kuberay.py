"""What a plan for Kubernetes promises: it decides everything, and refuses beforehand what KubeRay would
refuse or leave hanging.
"""

import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from raystack.config import dump, load
from raystack.config.target import Local
from raystack.errors import ConfigError, PlanError
from raystack.plan import KubePlan, plan_kuberay
from raystack.plan.kuberay.facts import ray_of, seen_by_kuberay
from raystack.plan.kuberay.names import LIMITS, safe_name
from raystack.plan.kuberay.pods import plan_devices

RUN = "demo-20261123-094500-3f9a"
GOOD = """\
experiment: {name: demo, storage: "s3://bucket/demo"}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 4, cpus_per_worker: 2}
tracking: {uri: "http://mlflow.ml.svc:5000"}
serving: {model: "models:/demo@champion", replicas: 3}
target: {kind: kuberay, image: "registry.example.com/raystack:1"}
"""

Planned = Callable[..., KubePlan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """A plan of GOOD with overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)

    def planned(*overrides: str, form: Any = "job", run: str = RUN, local_ray: str | None = None) -> KubePlan:
        return plan_kuberay(load(tmp_path / "config.yaml", overrides), run, form, local_ray)

    return planned


def refused(planned: Planned, *overrides: str, form: Any = "job", local_ray: str | None = None) -> str:
    with pytest.raises(PlanError) as caught:
        planned(*overrides, form=form, local_ray=local_ray)
    assert all(
        problem.where.startswith(("target.", "resources.", "experiment.", "tracking.", "serving.", "task."))
        for problem in caught.value.problems
    )
    return str(caught.value)


def test_a_job_has_a_pod_for_each_worker(planned: Planned) -> None:
    plan = planned()
    assert (plan.kind, plan.name, plan.account) == ("RayJob", RUN, RUN)
    assert (plan.group.least, plan.group.most, plan.group.replicas, plan.group.pod.cpus) == (4, 4, 4, "2")
    assert plan.group.ray == {}
    assert plan.entrypoint == ("python", "-m", "raystack.train", "/etc/raystack/config.yaml")
    with pytest.raises(FrozenInstanceError):
        plan.name = "other"  # type: ignore[misc]


def test_the_same_config_has_the_same_plan_also_after_it_was_written(
    planned: Planned, tmp_path: Path
) -> None:
    plan = planned("spot=gke", "target.worker.tolerations=[{key: gpu}]")
    (tmp_path / "again.yaml").write_text(dump(plan.config))
    assert plan_kuberay(load(tmp_path / "again.yaml"), RUN, "job") == plan


def test_strict_pack_is_one_pod_with_all_workers(planned: Planned) -> None:
    plan = planned(
        "resources.placement=STRICT_PACK", "resources.gpus_per_worker=1", "resources.custom={rack: 0.5}"
    )
    assert (plan.group.least, plan.group.most, plan.group.pod.cpus) == (1, 1, "8")
    assert (plan.group.pod.devices.key, plan.group.pod.devices.count) == ("nvidia.com/gpu", 4)
    assert plan.group.ray == {"rack": "2"}


def test_an_elastic_run_leaves_the_number_to_the_autoscaler(planned: Planned) -> None:
    plan = planned("resources.workers=[2,6]", "target.autoscaling.enabled=true")
    assert (plan.group.least, plan.group.most, plan.group.replicas) == (2, 6, None)
    assert planned("resources.workers=[2,6]").group.replicas == 6


def test_replicas_that_share_a_gpu_share_a_pod(planned: Planned) -> None:
    plan = planned("serving.gpus_per_replica=0.5", "serving.cpus_per_replica=2", form="service")
    assert (plan.kind, plan.group.most, plan.group.pod.cpus, plan.group.pod.devices.count) == (
        "RayService",
        2,
        "4",
        1,
    )


@pytest.mark.parametrize(
    ("experiment", "name"), [("digits", "digits-cron"), ("cron", "cron"), ("daily-cron", "daily-cron")]
)
def test_a_schedule_says_its_form_once(planned: Planned, experiment: str, name: str) -> None:
    schedule = "target.cron.schedule=@daily"
    assert planned(schedule, f"experiment.name={experiment}", form="cron").name == name


def test_a_schedule_with_a_queue_is_a_plain_cron_job(planned: Planned) -> None:
    schedule = "target.cron.schedule='0 3 * * *'"
    assert planned(schedule, form="cron").kind == "RayCronJob"
    assert planned(schedule, "queue=volcano", form="cron").kind == "CronJob"


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        ("nvidia.com/gpu", True),
        ("amd.com/gpu", True),
        ("nvidia.com/mig-1g.10gb", True),
        ("nvidia.com/gpu.shared", False),
        ("nvidia.com/mig-1g.10gb.me", False),
        ("nvidia.com/mig-1g.5gb.shared", False),
        ("gpu.intel.com/i915", False),
        ("habana.ai/gaudi", False),
    ],
)
def test_ray_is_told_of_gpus_that_kuberay_does_not_see(planned: Planned, key: str, seen: bool) -> None:
    assert seen_by_kuberay(key) is seen
    plan = planned("resources.gpus_per_worker=1", f"target.gpu.key={key}")
    assert plan.group.ray == ({} if seen else {"GPU": "1"})


def test_each_share_of_a_gpu_has_its_resource(planned: Planned) -> None:
    shares = {
        "mig": "nvidia.com/mig-1g.10gb",
        "time_slice": "nvidia.com/gpu.shared",
        "mps": "nvidia.com/gpu.shared",
    }
    assert {
        share: planned("resources.gpus_per_worker=1", f"gpu={share}").group.pod.devices.key
        for share in shares
    } == shares
    claimed = planned("resources.gpus_per_worker=1", "target.gpu.dra=one-gpu")
    assert (claimed.group.pod.devices.claim, claimed.group.pod.devices.key, claimed.group.ray) == (
        "one-gpu",
        None,
        {"GPU": "1"},
    )
    assert plan_devices(claimed.target.gpu, 0).claim is None


REASONS = {
    "pod": "KAI takes no RayJob in K8sJobMode",
    "gang": "YuniKorn gets the task groups of a RayJob in K8sJobMode only",
    "job": "KubeRay supports scheduler-plugins for a RayCluster, not for a RayJob",
}
MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
MATRIX = {
    "none": (None, None, None, None),
    "kueue": (None, None, None, None),
    "volcano": (None, None, None, None),
    "yunikorn": (None, "gang", "gang", "gang"),
    "kai": ("pod", None, None, None),
    "scheduler-plugins": ("job", "job", "job", "job"),
}
"""For a job, by scheduler and in the order of MODES: why it is refused, or None."""


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("scheduler", "mode", "reason"),
    [(name, *pair) for name, row in MATRIX.items() for pair in zip(MODES, row, strict=True)],
)
def test_schedulers_modes_and_the_autoscaler(
    planned: Planned, scheduler: str, mode: str, reason: str | None, scaled: bool
) -> None:
    named = ["target.queue.name=team"] if scheduler in ("kueue", "volcano", "yunikorn", "kai") else []
    config = [
        f"target.queue.scheduler={scheduler}",
        f"target.submission.mode={mode}",
        "resources.workers=[1,4]",
        *named,
    ]
    config.append(f"target.autoscaling.enabled={str(scaled).lower()}")
    if reason is not None:
        assert REASONS[reason] in refused(planned, *config)
        return
    plan = planned(*config)
    admitted = {"kueue.x-k8s.io/elastic-job": "true"} if scheduler == "kueue" and scaled else {}
    assert plan.admission.annotations == admitted
    assert ("team" in plan.admission.labels.values()) == bool(named)
    assert (plan.group.replicas is None) == scaled
    operators = {need.name for need in plan.needs if need.kind == "scheduler"}
    assert operators == (
        {"kai-scheduler" if scheduler == "kai" else scheduler}
        if scheduler in ("volcano", "yunikorn", "kai")
        else set()
    )


KUEUE = ("target.queue.scheduler=kueue", "target.queue.name=team")
INCREMENTAL = ("target.upgrade.kind=NewClusterWithIncrementalUpgrade", "target.upgrade.gateway_class=istio")
SCALED = "target.autoscaling.enabled=true"


@pytest.mark.parametrize(
    ("form", "overrides", "said"),
    [
        ("job", ("resources.workers=inline",), "resources.workers: inline trains in the driver"),
        ("job", ("target.worker.cpus=1",), "target.worker.cpus: a worker pod needs 2 cores"),
        ("job", (SCALED,), "set resources.workers=[1,4]"),
        ("job", (SCALED, "resources.workers=[1,4]", "resources.placement=STRICT_PACK"), "nothing to scale"),
        (
            "job",
            (SCALED, "resources.workers=[1,4]", "target.autoscaling.max_workers=3"),
            "target.autoscaling.max_workers: the run may use 4",
        ),
        ("job", ("target.autoscaling.max_workers=3",), "takes effect only with the autoscaler"),
        ("job", ("gpu=mig",), "target.gpu: takes effect only with GPUs"),
        ("job", ("resources.accelerator_type=H100",), "resources.accelerator_type: is the type of a GPU"),
        ("job", ("resources.gpus_per_worker=1", "resources.accelerator_type=X9"), "no node label is known"),
        (
            "job",
            ("resources.gpus_per_worker=1", "gpu=mps", "resources.placement=STRICT_PACK"),
            "gives a pod one shared GPU",
        ),
        ("job", ("target.queue.name=team",), "none has no queues"),
        ("job", (*KUEUE, "target.queue.gang=false"), "kueue always admits all pods at once"),
        (
            "job",
            ("queue=yunikorn", "target.queue.topology=rack"),
            "only kueue and volcano place pods by topology",
        ),
        ("job", ("queue=volcano", "target.queue.topology=rack"), "highest tier as a number"),
        (
            "job",
            (*KUEUE, "target.lifetime.rules=[{policy: DeleteCluster, after: FAILED}]"),
            "target.lifetime.rules: kueue suspends",
        ),
        (
            "job",
            (*KUEUE, "target.queue.multikueue=true", SCALED, "resources.workers=[1,4]"),
            "cannot be scaled",
        ),
        (
            "job",
            (*KUEUE, "target.queue.multikueue=true"),
            "target.service_account: the other cluster does not have",
        ),
        ("service", (*KUEUE, SCALED), "Kueue scales RayJob and RayCluster, not RayService"),
        (
            "job",
            ("target.submission.mode=InteractiveMode", "target.submission.retries=1"),
            "target.submission.retries",
        ),
        (
            "job",
            (
                "target.submission.mode=SidecarMode",
                "target.high_availability={backend: redis, redis: 'redis://r:6379'}",
            ),
            "a head that comes back has no job",
        ),
        (
            "cron",
            ("target.cron.schedule=@daily", "target.submission.mode=InteractiveMode"),
            "nobody is there to submit",
        ),
        ("cron", (), "target.cron.schedule: says when to train"),
        ("cron", ("target.cron.schedule='TZ=UTC 0 3 * * *'",), "set target.cron.time_zone"),
        ("cron", ("target.cron.schedule='0 25 * * *'",), "the hour should be 0 to 23"),
        ("cron", ("target.cron.schedule=@daily", "target.cron.time_zone='3 am'"), "should be an IANA name"),
        (
            "job",
            ("target.lifetime={ttl_s: 5, rules: [{policy: DeleteSelf, after: FAILED}]}",),
            "target.lifetime.ttl_s",
        ),
        (
            "job",
            (
                (
                    "target.lifetime.rules=[{policy: DeleteWorkers, after: FAILED, ttl_s: 9}, {policy:"
                    " DeleteCluster, after: FAILED, ttl_s: 8}]"
                ),
            ),
            "DeleteWorkers should come before DeleteCluster",
        ),
        (
            "job",
            (
                (
                    "target.lifetime.rules=[{policy: DeleteSelf, after: FAILED}, {policy: DeleteSelf, after:"
                    " FAILED, ttl_s: 8}]"
                ),
            ),
            "DeleteSelf twice",
        ),
        (
            "job",
            (
                "target.lifetime.rules=[{policy: DeleteWorkers, after: FAILED}]",
                SCALED,
                "resources.workers=[1,4]",
            ),
            "would bring the deleted workers back",
        ),
        ("service", INCREMENTAL, "target.upgrade.kind: moving traffic in steps needs the autoscaler"),
        ("service", (*INCREMENTAL, SCALED, "target.upgrade.surge_percent=5"), "target.upgrade.step_percent"),
        ("service", ("target.high_availability.backend=rocksdb",), "target.high_availability.claim"),
        ("service", ("serving.model=/models/demo",), "serving.model: is a folder that the pods do not have"),
        (
            "service",
            ("serving.model=null", "serving.graph={steps: {one: {model: /models/a}}, outputs: {y: one.y}}"),
            "serving.graph.steps.one.model: is a folder that the pods do not have",
        ),
        ("job", ("experiment.storage=/data",), "experiment.storage: is a folder of the pod"),
        (
            "job",
            (
                "experiment.storage=/mnt/x/demo",
                "target.storage.volumes=[{kind: pvc, name: x, mount: /mnt/x, read_only: true}]",
            ),
            "mounted read-only",
        ),
        (
            "job",
            ("target.storage.volumes=[{kind: pvc, name: x, mount: /etc/raystack}]",),
            "raystack mounts the run's config there",
        ),
        ("job", ("target.storage.s3_endpoint=http://localhost:9000",), "is the pod itself"),
        ("job", ("target.storage.aws_role=arn", "target.service_account=mine"), "target.storage.aws_role"),
        ("job", ("tracking.uri=http://127.0.0.1:5000",), "tracking.uri: is the pod itself"),
        ("job", ("tracking.uri=sqlite:////tmp/x.db",), "tracking.uri: is a file of the pod"),
        ("job", ("tracking.tensorboard={folder: /tmp/x}",), "tracking.tensorboard.folder: is a folder of"),
        ("job", ("tracking.wandb={base_url: 'http://localhost:8080'}",), "tracking.wandb.base_url: is the"),
        ("job", ("tracking.token=secret:env:MLFLOW",), "add target.secrets.MLFLOW=secret/key"),
        (
            "job",
            ("+task.args={key: 'secret:file:/run/key'}",),
            "task.args.key: reads a file that the pods do not have",
        ),
        ("job", ("target.env.RAY_REDIS_ADDRESS=redis:6379",), "use target.high_availability.redis"),
        ("service", ("serving.tokens={a: 'secret:env:A'}",), "add target.secrets.A=secret/key"),
        ("service", ("serving.tls={certificate: a, key: b}",), "leave TLS to the Ingress or Gateway"),
        ("job", ("target.env.A=b", "target.secrets.A=s/k"), "target.secrets.A: is in target.env as well"),
        ("job", ("target.labels={team: 'no spaces'}",), "target.labels: a label is prefix/name"),
        ("job", ("target.annotations={ray.io/ft-enabled: 'true'}",), "use target.high_availability"),
        (
            "job",
            ("target.kuberay_version=1.5.1",),
            "target.submission.start_deadline_s needs KubeRay 1.6.0 or later",
        ),
        (
            "job",
            ("target.kuberay_version=1.6.2", "target.security.tls=true"),
            "target.security.tls needs KubeRay 1.7.0",
        ),
        ("job", ("target.ray_version=2.51.0",), "Ray knows tokens since 2.52.0"),
        ("job", ("target.image=rayproject/ray:2.59.0-py311",), "set target.ray_version=2.59.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(
    planned: Planned, form: str, overrides: tuple[str, ...], said: str
) -> None:
    assert said in refused(planned, *overrides, form=form)


def test_all_reasons_are_told_at_once(planned: Planned) -> None:
    said = refused(
        planned, "experiment.storage=/data", "tracking.uri=http://localhost:5000", "target.queue.name=team"
    )
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "target.queue.name",
        "experiment.storage",
        "tracking.uri",
    ]


def test_the_image_has_this_machines_ray(planned: Planned) -> None:
    assert "this raystack works with Ray 2.59.1" in refused(planned, local_ray="2.59.1")
    assert planned(local_ray="2.60.3").target.ray_version == "2.60.0"
    assert ray_of("rayproject/ray:2.60.0-py311-gpu") == "2.60.0"
    assert ray_of("registry.example.com:5000/team/raystack:2.1.0") is None
    assert ray_of("mirror.example.com/rayproject/ray-ml:2.9.0-gpu") == "2.9.0"
    # An image of one's own may be called ray, with version numbers of its own.
    for image in ("registry.example.com/team/ray:1.4.2", "localhost:5000/ray-train:2.1.0", "ray:1.4.2"):
        assert planned(f"target.image={image}").target.image == image
    older = refused(planned, "target.image=rayproject/ray:2.40.0", local_ray="2.60.0")
    assert "use an image of Ray 2.60.0" in older


def test_another_target_is_refused(planned: Planned) -> None:
    config = planned().config.model_copy(update={"target": Local()})
    with pytest.raises(PlanError, match="add target=kuberay"):
        plan_kuberay(config, RUN, "job")


def test_what_has_to_be_there_is_named(planned: Planned) -> None:
    plan = planned(
        "target.security={tls: true, network_policy: true}",
        "target.secrets={HF_TOKEN: hugging-face/token}",
        *KUEUE,
        "spot=aks",
    )
    assert [need.line for need in plan.needs] == [
        "KubeRay 1.7.0 or later, for target.security.tls",
        "the operator's feature gate RayClusterMTLS=true, for target.security.tls",
        "the operator's feature gate RayClusterNetworkPolicy=true, for target.security.network_policy",
        "Kueue, for target.queue.scheduler",
        "cert-manager, for target.security.tls",
        "Secret hugging-face with token, for target.secrets.HF_TOKEN",
        "LocalQueue team, for target.queue.name",
    ]


@pytest.mark.parametrize(
    "text", ["demo", RUN, "a" * 40 + "-20261123-094500-3f9a", "1st-try", "My_Model.v2", "x" * 80, "9", "-"]
)
def test_names_are_what_kuberay_takes(text: str) -> None:
    for limit in LIMITS.values():
        name = safe_name(text, limit)
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= limit
        assert name == safe_name(text, limit)


def test_a_shortened_name_stays_its_own() -> None:
    assert safe_name("a" * 40 + "-20261123-094500-3f9a", 47).endswith("aaa-20261123-094500-3f9a")
    assert safe_name("my_model", 47) != safe_name("my.model", 47)
    assert safe_name("x" * 80, 47) != safe_name("x" * 81, 47)


def test_a_volume_is_named_as_its_kind_wants(planned: Planned) -> None:
    with pytest.raises(ConfigError, match=r"an NFS export is server:/export"):
        planned("target.storage.volumes=[{kind: nfs, name: server, mount: /mnt/x}]")
    with pytest.raises(ConfigError, match=r"should be the name of a claim or a bucket"):
        planned("target.storage.volumes=[{kind: pvc, name: 'a:/b', mount: /mnt/x}]")
