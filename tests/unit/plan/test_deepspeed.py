"""The JSON that DeepSpeed's engine gets: made of the config, printable before the run, and with one place for
each setting.
"""

import json
from typing import Any

import pytest

from raystack.config.resources import Resources
from raystack.config.strategy import Zero
from raystack.config.training import Training
from raystack.errors import PlanError
from raystack.plan.batch import Batch
from raystack.plan.deepspeed import DECIDED, KEYS, OURS, plan_deepspeed
from raystack.plan.scale import plan_workers

BATCH = Batch(global_=48, micro=4, accumulation=3, workers=4)


def planned(strategy: dict[str, Any], gpus: int = 0, **training: Any) -> dict[str, Any]:
    config = Zero.model_validate({"kind": "zero", **strategy})
    whole = Training.model_validate({"steps": 1, "batch": {"global": 48}, "strategy": config, **training})
    workers = plan_workers(Resources.model_validate({"workers": 4, "gpus_per_worker": gpus}))
    return dict(plan_deepspeed(config, whole, BATCH, workers))


def refused(extra: dict[str, Any], **strategy: Any) -> list[str]:
    with pytest.raises(PlanError) as raised:
        planned({"stage": 2, **strategy, "extra": extra})
    return [str(problem) for problem in raised.value.problems]


def test_the_whole_json_of_a_stage_2_run() -> None:
    json_ = planned(
        {"stage": 2, "bucket_mb": 8, "extra": {"wall_clock_breakdown": True}}, precision="bf16", clip_norm=1.0
    )
    assert json_ == {
        "train_batch_size": 48,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 3,
        "gradient_clipping": 1.0,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": 1e-3,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": 0.01,
                "torch_adam": True,
                "fused": True,
            },
        },
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": 2,
            "contiguous_gradients": True,
            "reduce_bucket_size": 4 * 2**20,
            "allgather_bucket_size": 4 * 2**20,
        },
        "wall_clock_breakdown": True,
    }
    assert json.loads(json.dumps(json_)) == json_


def test_sizes_in_bytes_become_elements_of_the_precision() -> None:
    strategy = {
        "stage": 3,
        "prefetch_mb": 2,
        "persistence_kb": 8,
        "max_live_millions": 3,
        "overlap_comm": False,
    }
    single, half = (
        planned(strategy, precision=precision)["zero_optimization"] for precision in ("fp32", "fp16")
    )
    for key, size in (
        ("stage3_prefetch_bucket_size", 2 << 20),
        ("stage3_param_persistence_threshold", 8 << 10),
    ):
        assert (single[key], half[key]) == (size // 4, size // 2)
    assert single["stage3_max_live_parameters"] == 3_000_000
    assert single["overlap_comm"] is False


def test_offload_is_passed_on_and_gpus_get_deepspeeds_cpu_adam() -> None:
    nvme = {"device": "nvme", "path": "/nvme", "buffers": 3}
    strategy = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": nvme}
    zero = planned(strategy)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert zero["offload_param"] == {
        "device": "nvme",
        "pin_memory": True,
        "nvme_path": "/nvme",
        "buffer_count": 3,
    }
    assert planned(strategy)["optimizer"]["params"]["torch_adam"]
    assert "torch_adam" not in planned(strategy, gpus=1)["optimizer"]["params"]


def test_fp16_has_its_loss_scale_and_no_stage_0() -> None:
    assert planned({"stage": 1, "loss_scale": {"static": 128.0}}, precision="fp16")["fp16"] == {
        "enabled": True,
        "loss_scale": 128.0,
    }
    assert (
        planned({"stage": 1, "loss_scale": {"initial_power": 8}}, precision="fp16")["fp16"][
            "initial_scale_power"
        ]
        == 8
    )
    with pytest.raises(PlanError, match=r"training\.precision: fp16 needs stage 1, 2 or 3"):
        planned({"stage": 0}, precision="fp16")


def test_extra_is_merged_deeply() -> None:
    extra = {
        "zero_optimization": {"sub_group_size": 1000, "offload_optimizer": {"fast_init": True}},
        "bf16": {"check_grad_overflow": False},
    }
    merged = planned({"stage": 3, "offload_optimizer": {"device": "cpu"}, "extra": extra}, precision="bf16")
    assert merged["zero_optimization"]["sub_group_size"] == 1000
    assert merged["zero_optimization"]["offload_optimizer"] == {
        "device": "cpu",
        "pin_memory": True,
        "fast_init": True,
    }
    assert merged["bf16"] == {"enabled": True, "check_grad_overflow": False}


def test_a_key_that_the_config_decides_is_refused_with_its_field() -> None:
    problems = refused(
        {
            "train_batch_size": 8,
            "zero_optimization": {"stage": 3, "reduce_bucket_size": 5},
            "optimizer": {"type": "Lamb"},
        }
    )
    assert problems == [
        "training.strategy.extra.train_batch_size: raystack's config decides it; set training.batch.global",
        (
            "training.strategy.extra.zero_optimization.stage: raystack's config decides it; set"
            " training.strategy.stage"
        ),
        (
            "training.strategy.extra.zero_optimization.reduce_bucket_size: raystack's config decides it; set"
            " training.strategy.bucket_mb"
        ),
        "training.strategy.extra.optimizer.type: raystack's config decides it; set training.optimizer",
    ]
    assert "set training.precision" in refused({"fp16": True})[0]
    assert "raystack writes the checkpoints" in refused({"checkpoint": {"tag_validation": "Fail"}})[0]


def test_every_leaf_that_is_set_is_decided() -> None:
    offloads = {
        "offload_optimizer": {"device": "nvme", "path": "/a"},
        "offload_param": {"device": "nvme", "path": "/a"},
    }
    for training in ({"precision": "bf16"}, {"precision": "fp16"}, {"optimizer": {"kind": "sgd"}}):
        for leaf in leaves(planned({"stage": 3, "overlap_comm": True, **offloads}, **training)):
            *parents, last = leaf.split(".")
            extra: Any = {last: 1}
            for parent in reversed(parents):
                extra = {parent: extra}
            assert leaf in refused(extra, stage=3)[0]


def test_an_unknown_key_gets_the_nearest_of_deepspeeds() -> None:
    (problem,) = refused({"wall_clock_breakdwon": True})
    assert problem.startswith(
        "training.strategy.extra.wall_clock_breakdwon: DeepSpeed's JSON has no such key"
    )
    assert problem.endswith("did you mean 'wall_clock_breakdown'?")
    assert {key.partition(".")[0] for key in (*DECIDED, *OURS)} <= set(KEYS)


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found
