"""Lint sees what keeps pods from being made or from starting, and leaves alone what works."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from objects import good, merged

from raystack.cli.main import main
from raystack.errors import ConfigError
from raystack.kuberay.lint import Operator, documents, lint, read_all

Found = list[str]
LAST = re.compile(r"\.(?![^\[]*\])")
"""Dots of a path, but for those in brackets."""


def found(kind: str, patch: Mapping[str, Any], operator: Operator | None = None) -> Found:
    """Rule, level and the last part of the path of all findings."""
    gates = frozenset({"RayCronJob", "RayClusterHistoryServer"})
    findings = lint(documents([merged(good(kind), patch)]), operator or Operator(gates=gates))
    return [f"{each.level} {each.id} {LAST.split(each.path)[-1]}" for each in findings]


def worker(group: Mapping[str, Any]) -> dict[str, Any]:
    """A RayCluster whose worker group is patched."""
    return {"spec": {"workerGroupSpecs": {0: group}}}


def pod(spec: Mapping[str, Any], container: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A RayCluster whose workers' pods are patched."""
    inside = {} if container is None else {"containers": {0: container}}
    return worker({"template": {"spec": {**spec, **inside}}})


def limits(**amounts: Any) -> dict[str, Any]:
    """A RayCluster whose workers have these limits; `__` in a name stands for a slash, and `_` for a dot."""
    named = {key.replace("__", "/").replace("_", "."): value for key, value in amounts.items()}
    return pod({}, {"resources": {"limits": named}})


QUIET: list[tuple[str, dict[str, Any]]] = [
    ("RayCluster", limits(nvidia_com__gpu=1, nvidia_com__gpumem=8000, nvidia_com__gpucores=50)),
    ("RayCluster", limits(nvidia_com__gpu=1, rdma__gpu_a=1)),
    ("RayCluster", limits(rdma__gpu_a=1, nvidia_com__hostdev=2)),
    ("RayCluster", limits(volcano_sh__gpu=1, aliyun_com__gpumem=4)),
    ("RayCluster", limits(nvidia_com__gpu_shared=0)),
    ("RayCluster", limits(aws_amazon_com__neuroncore=2)),
    ("RayCluster", limits(google_com__tpu="4")),
    (
        "RayCluster",
        pod(
            {"resourceClaims": [{"name": "netdev", "resourceClaimTemplateName": "all-netdev"}]},
            {"resources": {"limits": {"google.com/tpu": 4}, "claims": [{"name": "netdev"}]}},
        ),
    ),
    ("RayCluster", pod({}, {"resources": {"requests": {"memory": 0}}})),
    (
        "RayCluster",
        {
            "spec": {
                "enableInTreeAutoscaling": True,
                "headGroupSpec": {
                    "template": {
                        "spec": {
                            "containers": {0: {"env": [{"name": "RAY_enable_autoscaler_v2", "value": "1"}]}}
                        }
                    }
                },
                "workerGroupSpecs": {0: {"template": {"spec": {"restartPolicy": "Always"}}}},
            }
        },
    ),
    (
        "RayJob",
        {
            "metadata": {"annotations": {"ray.io/ft-enabled": "", "ray.io/external-storage-namespace": ""}},
            "spec": {
                "rayClusterSpec": {
                    "gcsFaultToleranceOptions": {"redisAddress": "redis:6379"},
                    "headGroupSpec": {
                        "rayStartParams": {"redis-password": "", "redis-username": "", "num-cpus": ""},
                        "resources": {"CPU": "0"},
                        "template": {"spec": {"restartPolicy": ""}},
                    },
                }
            },
        },
    ),
    ("RayService", {"metadata": {"annotations": {"ray.io/initializing-timeout": ""}}}),
    ("RayJob", {"metadata": {"labels": {"volcano.sh/queue-name": ""}}, "spec": {"entrypointResources": ""}}),
    ("RayJob", {"metadata": {"labels": {"kai.scheduler/queue": ""}}, "spec": {"submissionMode": ""}}),
    ("RayService", {"spec": {"serveConfigV2": ""}}),
    ("RayCluster", pod({"nodeSelector": {"topology": "$TOPOLOGY", "pool": "${POOL}"}})),
    (
        "RayJob",
        {
            "spec": {
                "rayClusterSpec": {
                    "headGroupSpec": {
                        "template": {
                            "spec": {
                                "containers": {
                                    0: {
                                        "ports": [
                                            {"name": "redis", "containerPort": 6379},
                                            {"name": "dashboard", "containerPort": 8265},
                                        ]
                                    }
                                }
                            }
                        }
                    }
                }
            }
        },
    ),
    (
        "RayJob",
        {
            "spec": {
                "entrypoint": None,
                "submitterPodTemplate": {
                    "spec": {
                        "restartPolicy": "Never",
                        "containers": [{"name": "own", "image": "mine", "command": ["/submit"]}],
                    }
                },
            }
        },
    ),
    (
        "RayCluster",
        {
            "metadata": {"annotations": {"ray.io/overwrite-container-cmd": "true"}},
            "spec": {"headGroupSpec": {"rayStartParams": {"num_cpus": "many"}}},
        },
    ),
    ("RayCluster", worker({"rayStartParams": {"node-ip-address": "$MY_POD_IP", "num-cpus": "`nproc`"}})),
    ("RayCluster", worker({"rayStartParams": {"resources": '"{\\"special\\": 1}"'}})),
    ("RayCluster", worker({"rayStartParams": {"system-reserved-cpu": "2.0", "no-monitor": "true"}})),
    ("RayCluster", worker({"resources": {"CPU": "4", "GPU": "1", "memory": "8Gi", "special": "2"}})),
    ("RayCluster", pod({}, {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": 1.0}}})),
    ("RayCluster", pod({"volumes": [{"name": "v"}]}, {"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
    ("RayCluster", pod({"tolerations": [{"operator": "Exists"}]})),
    (
        "RayCluster",
        {
            "spec": {
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "volumeMounts": [
                        {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                        {"name": "ray-logs", "mountPath": "/logs"},
                    ],
                },
                "headGroupSpec": {
                    "template": {
                        "spec": {"automountServiceAccountToken": False, "volumes": [{"name": "token"}]}
                    }
                },
            }
        },
    ),
]


@pytest.mark.parametrize(("kind", "patch"), QUIET)
def test_nothing_is_said_of_what_works(kind: str, patch: dict[str, Any]) -> None:
    told = [each for each in found(kind, patch) if "RS725" not in each and "RS716" not in each]
    assert told == []


ONE_LINE: list[tuple[str, dict[str, Any], Found]] = [
    ("RayCluster", {"metadata": {"lables": {"a": "b"}}}, ["error RS120 lables"]),
    (
        "RayService",
        {"spec": {"rayClusterConfig": {"headGroupSpec": {"rayStartParam": {}}}}},
        ["error RS120 rayStartParam"],
    ),
    ("RayJob", {"spec": {"entryPoint": "x", "entrypoint": None}}, ["error RS120 entryPoint"]),
    ("RayJob", {"spec": {"rayCluster": {}, "rayClusterSpec": None}}, ["error RS120 rayCluster"]),
    ("RayCluster", pod({}, {"image": None, "images": "mine"}), ["error RS120 images"]),
    ("RayCluster", {"metadata": {"name": 1}}, ["error RS121 name"]),
    ("RayCluster", {"spec": {"headGroupSpec": {"serviceType": "Nodeport"}}}, ["error RS150 serviceType"]),
    (
        "RayCronJob",
        {"spec": {"jobTemplate": {"shutdownAfterJobFinish": True}}},
        ["error RS120 shutdownAfterJobFinish"],
    ),
    ("RayCluster", limits(memory="4GB"), ["error RS122 memory"]),
    ("RayCluster", limits(memory="16 Gi"), ["error RS122 memory"]),
    ("RayCluster", limits(cpu="2 cores"), ["error RS122 cpu"]),
    ("RayCluster", limits(memory=400), ["error RS741 memory"]),
    ("RayJob", {"kind": "Rayjob"}, ["error RS112 kind"]),
    ("RayService", {"apiVersion": "v1"}, ["error RS112 apiVersion"]),
    # mounts, names and ports
    ("RayCluster", pod({}, {"volumeMounts": [{"name": "v", "mountPath": "/x"}]}), ["error RS142 name"]),
    (
        "RayCluster",
        pod(
            {
                "initContainers": [
                    {"name": "i", "image": "m", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}
                ]
            }
        ),
        ["error RS142 name"],
    ),
    (
        "RayCluster",
        pod({}, {"resources": {"claims": [{"name": "gpu"}]}}),
        ["error RS142 name", "warning RS707 claims"],
    ),
    (
        "RayCluster",
        pod(
            {"volumes": [{"name": "a"}, {"name": "b"}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/x"}, {"name": "b", "mountPath": "/x"}]},
        ),
        ["error RS141 mountPath"],
    ),
    (
        "RayCluster",
        pod({}, {"ports": [{"name": "m", "containerPort": 1}, {"name": "m", "containerPort": 2}]}),
        ["error RS141 name"],
    ),
    ("RayCluster", pod({}, {"ports": [{"name": "8080", "containerPort": 8080}]}), ["error RS144 name"]),
    ("RayCluster", pod({}, {"ports": [{"containerPort": 70000}]}), ["error RS144 containerPort"]),
    ("RayCluster", pod({"containers": {1: {"name": "side"}}}), ["error RS140 image"]),
    ("RayCluster", pod({"volumes": [{"name": "My_Volume"}]}), ["error RS145 name"]),
    (
        "RayCluster",
        pod({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}),
        ["error RS148 volumes[0]"],
    ),
    ("RayCluster", pod({}, {"livenessProbe": {"periodSeconds": 5}}), ["error RS148 livenessProbe"]),
    # requests and limits
    ("RayCluster", limits(nvidia_com__gpu="500m"), ["error RS143 limits[nvidia.com/gpu]"]),
    ("RayCluster", limits(gpu=1), ["error RS143 gpu"]),
    (
        "RayCluster",
        pod({}, {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}}),
        ["error RS143 requests[nvidia.com/gpu]"],
    ),
    ("RayCluster", pod({}, {"resources": {"requests": {"rdma/hca": 1}}}), ["error RS143 requests[rdma/hca]"]),
    ("RayCluster", pod({}, {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "0.1"}}}), []),
    ("RayCluster", limits(cpu="-1"), ["error RS143 cpu"]),
    (
        "RayCluster",
        {
            "spec": {
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}},
                },
            }
        },
        ["error RS143 cpu"],
    ),
    # words and labels
    ("RayCluster", pod({"restartPolicy": "Sometimes"}), ["error RS147 restartPolicy"]),
    ("RayCluster", pod({}, {"imagePullPolicy": "always"}), ["error RS147 imagePullPolicy"]),
    (
        "RayCluster",
        pod({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
        ["error RS147 value"],
    ),
    ("RayCluster", pod({"nodeSelector": {"pool": "a b"}}), ["error RS146 pool"]),
    ("RayJob", {"metadata": {"labels": {"team": "x" * 64}}}, ["error RS146 team"]),
    ("RayJob", {"metadata": {"annotations": {"a b": "c"}}}, ["error RS146 annotations[a b]"]),
    # the submitter is a pod, too
    (
        "RayJob",
        {
            "spec": {
                "submitterPodTemplate": {
                    "spec": {
                        "restartPolicy": "Never",
                        "containers": [
                            {"name": "s", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}
                        ],
                    }
                }
            }
        },
        ["error RS140 image", "error RS143 cpu"],
    ),
    (
        "RayCronJob",
        {
            "spec": {
                "jobTemplate": {
                    "submitterPodTemplate": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "s",
                                    "image": "m",
                                    "volumeMounts": [{"name": "v", "mountPath": "/x"}],
                                }
                            ],
                        }
                    }
                }
            }
        },
        ["error RS142 name"],
    ),
    # accelerators
    (
        "RayCluster",
        limits(nvidia_com__gpu=1, **{"nvidia.com__mig-1g.5gb": 2}),
        ["error RS707 limits[nvidia.com/mig-1g.5gb]"],
    ),
    ("RayCluster", limits(amd_com__gpu=1, nvidia_com__gpu=1), ["error RS707 limits[nvidia.com/gpu]"]),
    (
        "RayCluster",
        limits(nvidia_com__gpu=1, **{"nvidia.com__gpu.shared": 2}),
        ["error RS707 limits[nvidia.com/gpu.shared]"],
    ),
    ("RayCluster", limits(nvidia_com__gpumem=8000), ["error RS707 limits[nvidia.com/gpumem]"]),
    ("RayCluster", limits(aws_amazon_com__neuron=1), ["error RS707 limits[aws.amazon.com/neuron]"]),
    ("RayCluster", limits(habana_ai__gaudi=8), ["error RS707 limits[habana.ai/gaudi]"]),
    (
        "RayCluster",
        merged(limits(habana_ai__gaudi=8), worker({"rayStartParams": {"num-gpus": "8"}})),
        ["error RS707 limits[habana.ai/gaudi]"],
    ),
    ("RayCluster", merged(limits(habana_ai__gaudi=8), worker({"resources": {"HPU": "8"}})), []),
    (
        "RayCluster",
        merged(
            limits(aws_amazon_com__neuron=1),
            worker({"rayStartParams": {"resources": "'{\"neuron_cores\": 2}'"}}),
        ),
        [],
    ),
    (
        "RayCluster",
        merged(limits(**{"nvidia.com__gpu.shared": 1}), worker({"resources": {"CPU": "4"}})),
        ["error RS707 limits[nvidia.com/gpu.shared]"],
    ),
    (
        "RayCluster",
        merged(limits(nvidia_com__gpu=8), worker({"rayStartParams": {"num-gpus": "1"}})),
        ["warning RS736 num-gpus"],
    ),
    (
        "RayCluster",
        merged(limits(nvidia_com__gpu=8), worker({"rayStartParams": {"resources": '"{\\"a\\": 1}"'}})),
        ["warning RS707 resources"],
    ),
    ("RayCluster", limits(rdma__nic_gpu=4), ["warning RS707 limits[rdma/nic.gpu]"]),
    (
        "RayCluster",
        merged(limits(google_com__tpu=4), worker({"rayStartParams": {"resources": "'{\"TPU\": 1}'"}})),
        ["warning RS736 resources"],
    ),
    (
        "RayCluster",
        merged(limits(habana_ai__gaudi=8), worker({"resources": {"HPU": "4"}})),
        ["warning RS736 HPU"],
    ),
    # what the operator adds has a name, too
    (
        "RayCluster",
        {
            "spec": {
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"version": "v2"},
                "headGroupSpec": {
                    "template": {"spec": {"containers": {1: {"name": "autoscaler", "image": "m"}}}}
                },
            }
        },
        ["error RS111 name"],
    ),
    (
        "RayJob",
        {
            "spec": {
                "submissionMode": "SidecarMode",
                "rayClusterSpec": {
                    "headGroupSpec": {
                        "template": {"spec": {"containers": {1: {"name": "ray-job-submitter", "image": "m"}}}}
                    }
                },
            }
        },
        ["error RS111 name"],
    ),
    # what starts Ray
    ("RayCluster", worker({"rayStartParams": {"num-cpus": "2.0"}}), ["error RS733 num-cpus"]),
    ("RayCluster", worker({"rayStartParams": {"num-gpus": ""}}), ["error RS733 num-gpus"]),
    (
        "RayCluster",
        worker({"rayStartParams": {"object-store-memory": "2Gi"}}),
        ["error RS733 object-store-memory"],
    ),
    (
        "RayCluster",
        worker({"rayStartParams": {"object-store-memory": "1000"}}),
        ["error RS733 object-store-memory"],
    ),
    ("RayCluster", worker({"rayStartParams": {"block": "yes"}}), ["error RS733 block"]),
    ("RayCluster", worker({"rayStartParams": {"temp-dir": "/tmp/my ray"}}), ["error RS733 temp-dir"]),
    ("RayCluster", worker({"rayStartParams": {"temp-dir": "true"}}), ["error RS733 temp-dir"]),
    ("RayCluster", worker({"rayStartParams": {"log-style": "plain"}}), ["error RS733 log-style"]),
    (
        "RayCluster",
        worker({"rayStartParams": {"worker-port-list": "10002,http"}}),
        ["error RS733 worker-port-list"],
    ),
    ("RayCluster", worker({"rayStartParams": {"--num-cpus": "1"}}), ["error RS732 --num-cpus"]),
    ("RayCluster", worker({"rayStartParams": {"no-such": "false"}}), ["warning RS732 no-such"]),
    ("RayCluster", worker({"rayStartParams": {"port": "6379"}}), ["error RS732 port"]),
    (
        "RayCluster",
        worker({"rayStartParams": {"plasma-store-socket-name": "x"}}),
        ["warning RS732 plasma-store-socket-name"],
    ),
    (
        "RayCluster",
        worker({"rayStartParams": {"disable-usage-stats": "false"}}),
        ["warning RS734 disable-usage-stats"],
    ),
    ("RayCluster", worker({"rayStartParams": {"system-config": '{"a": 1}'}}), ["error RS729 system-config"]),
    (
        "RayService",
        {
            "spec": {
                "rayClusterConfig": {"headGroupSpec": {"rayStartParams": {"dashboard-host": "127.0.0.1"}}}
            }
        },
        ["error RS735 dashboard-host"],
    ),
    (
        "RayCronJob",
        {
            "spec": {
                "jobTemplate": {
                    "rayClusterSpec": {"headGroupSpec": {"rayStartParams": {"dashboard-port": "9999"}}}
                }
            }
        },
        ["error RS735 dashboard-port"],
    ),
    # what the operator makes of resources
    ("RayCluster", worker({"resources": {"CPU": "500m"}}), ["warning RS738 CPU"]),
    (
        "RayCluster",
        worker({"resources": {"GPU": "1", "nvidia.com/gpu": "2"}}),
        ["error RS738 resources[nvidia.com/gpu]"],
    ),
    ("RayCluster", worker({"resources": {"num-cpus": "2"}}), ["error RS738 num-cpus"]),
    ("RayCluster", worker({"resources": {"CPU": "four"}}), ["error RS737 CPU"]),
    ("RayCluster", worker({"resources": {"CPU": "-1"}}), ["error RS738 CPU"]),
    ("RayCluster", worker({"resources": {"memory": "16"}}), ["warning RS738 memory"]),
    ("RayCluster", worker({"resources": {"tpu": "4"}}), ["error RS738 tpu"]),
    (
        "RayCluster",
        worker({"resources": {"google.com/tpu": "4"}}),
        ["error RS738 resources[google.com/tpu]"],
    ),
    ("RayCluster", worker({"resources": {"special": "1500m"}}), ["error RS740 special"]),
    ("RayCluster", worker({"rayStartParams": {"resources": "'{\"CPU\": 4}'"}}), ["error RS740 resources"]),
    # submission
    ("RayJob", {"spec": {"entrypoint": " "}}, ["error RS730 entrypoint"]),
    ("RayJob", {"spec": {"entrypoint": None, "submissionMode": "HTTPMode"}}, ["error RS730 entrypoint"]),
    ("RayCronJob", {"spec": {"jobTemplate": {"entrypoint": ""}}}, ["error RS730 entrypoint"]),
]


@pytest.mark.parametrize(("kind", "patch", "expected"), ONE_LINE)
def test_each_mistake_is_one_line(kind: str, patch: dict[str, Any], expected: Found) -> None:
    told = [each for each in found(kind, patch) if "RS725" not in each]
    assert told == expected


def collector(*env: dict[str, Any]) -> dict[str, Any]:
    """A RayCluster with a history server's collector."""
    return {"spec": {"historyServerOptions": {"collectorOptions": {"image": "c:v1", "env": list(env)}}}}


def var(name: str, value: str | None) -> dict[str, Any]:
    """A variable, from a Secret if it has no value."""
    secret = {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    return {"name": name, **(secret if value is None else {"value": value})}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ([var("STORAGE_BACKEND", "gcs"), var("GCS_BUCKET", None)], []),
        ([var("STORAGE_BACKEND", "s3")], ["error RS332 env"]),
        ([var("STORAGE_BACKEND", "GCS"), var("GCS_BUCKET", "")], ["error RS332 env"]),
        ([var("STORAGE_BACKEND", None)], ["error RS332 env[0]"]),
        ([var("STORAGE_BACKEND", "MINIO")], ["warning RS332 value"]),
        (
            [
                var("STORAGE_BACKEND", "AzureBlob"),
                var("AZURE_STORAGE_AUTH_MODE", " Default "),
                var("AZURE_STORAGE_CONNECTION_STRING", "x"),
            ],
            ["error RS332 env"],
        ),
        ([var("STORAGE_BACKEND", "S3"), var("S3_REGION", "eu"), var("POD_IP", "x")], ["error RS321 env[2]"]),
    ],
)
def test_the_collector_knows_its_store(env: list[dict[str, Any]], expected: Found) -> None:
    assert found("RayCluster", collector(*env)) == expected


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_state_in_redis_behind_a_queue_is_told(kind: str) -> None:
    queue = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team"}}}
    redis = {"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}
    below = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(kind)
    job = {"spec": {"shutdownAfterJobFinishes": True}} if kind == "RayJob" else {}
    patch = merged(merged(queue, job), {"spec": redis if below is None else {below: redis}})
    assert found(kind, patch) == ["warning RS822 gcsFaultToleranceOptions"]
    newer = Operator(gates=frozenset({"DeferRayServiceFinalizationForRedisCleanup"}))
    assert found(kind, patch, newer) == []


@pytest.mark.parametrize(
    ("kind", "patch", "since"),
    [
        ("RayCluster", {"metadata": {"name": "a" * 60}}, "1.4.0"),
        ("RayService", {"metadata": {"name": "a.b"}}, "1.4.0"),
        ("RayJob", {"spec": {"ttlSecondsAfterFinished": 5}}, "1.4.0"),
        ("RayJob", {"spec": {"submissionMode": "InteractiveMode", "backoffLimit": 1}}, "1.4.0"),
        ("RayJob", {"spec": {"deletionPolicy": "DeleteCluster"}}, "1.4.0"),
        (
            "RayCluster",
            {"spec": {"enableInTreeAutoscaling": True, "workerGroupSpecs": {0: {"suspend": True}}}},
            "1.3.0",
        ),
    ],
)
def test_what_an_older_operator_takes_is_left_alone(kind: str, patch: dict[str, Any], since: str) -> None:
    older = {"1.4.0": "1.3.2", "1.3.0": "1.2.2"}[since]
    of = [Operator(version, frozenset({"RayJobDeletionPolicy"})) for version in (older, since)]
    without, refused = ([each for each in found(kind, patch, known) if "RS725" not in each] for known in of)
    assert (without, len(refused)) == ([], 1)


def text(*objects: Any) -> str:
    """Objects as YAML documents."""
    return yaml.safe_dump_all(objects)


def test_folders_wrappers_and_standard_input_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = merged(good("RayCluster"), {"metadata": {"name": "Bad"}})
    wrapper = {"kind": "AppWrapper", "spec": {"components": [{"template": bad}]}}
    item = {key: value for key, value in bad.items() if key != "kind"}
    listed = {"kind": "RayClusterList", "apiVersion": "ray.io/v1", "items": [item]}
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "wrapper.yaml").write_text(text(wrapper), encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps(listed), encoding="utf-8")
    (tmp_path / "values.yaml").write_text("- {{ .Values.a }}\n", encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text(text(bad), encoding="utf-8")
    read, nothing = read_all([str(tmp_path)])
    assert ([each.path for each in lint(read)], nothing) == (
        ["spec.components[0].template.metadata.name", "items[0].metadata.name"],
        [],
    )
    helm = f"---\n# Source: chart/templates/cluster.yaml\n{text(bad)}---\n# nothing\n---\nkind: Service\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(helm))
    assert main(["lint", "-"]) == 3
    assert capsys.readouterr().out.startswith("stdin:6: error RS201 metadata.name: ")


def test_a_template_is_no_manifest(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("apiVersion: ray.io/v1\nkind: RayCluster\nspec: {{ .Values.spec }}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"template .* raystack lint -"):
        read_all([str(file)])
    (tmp_path / "job.yaml").write_text(text(good("RayJob")), encoding="utf-8")
    read, (said,) = read_all([str(tmp_path)])
    assert ([each.kind for each in read], said.id, said.level) == (["RayJob"], "RS100", "warning")


def test_what_is_not_there_is_not_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(text({"apiVersion": "apps/v1", "kind": "Deployment"}), encoding="utf-8")
    assert main(["lint", str(file)]) == 0
    assert "warning RS100 (file): there is no object of KubeRay" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("--kuberay", "banana", "the newest is 1.7.0"),
        ("--kuberay", "1.2.9", "the newest is 1.7.0"),
        ("--scheduler", "vulcano", "did you mean volcano?"),
    ],
)
def test_an_operator_is_one_that_exists(
    option: str, value: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text(good("RayJob")), encoding="utf-8")
    assert main(["lint", option, value, str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{option}: " in error
    assert f"(got {value}); {meant}" in error
    assert main(["lint", "--kuberay", "v1.6", "--scheduler", "volcano", str(file)]) == 0
