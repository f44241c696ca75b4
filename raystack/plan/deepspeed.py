"""The JSON that DeepSpeed's engine is started with.

In: strategy, training, batch, workers. Out: a mapping. It is made here, without importing DeepSpeed, so that
`--dry-run` prints exactly what the engine gets. A key that the config decides is rejected in `extra`, so each
setting has one place.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from raystack.config.optimizer import SGD, Adam, AdamW, Optimizer, Own, RMSprop
from raystack.config.strategy import LossScale, Offload, Zero
from raystack.config.training import Training
from raystack.errors import PlanError, Problem, nearest
from raystack.plan.batch import Batch
from raystack.plan.scale import Workers

KEYS = (
    "activation_checkpointing",
    "aio",
    "amp",
    "autotuning",
    "bf16",
    "bfloat16",
    "checkpoint",
    "comms_logger",
    "communication_data_type",
    "compile",
    "compression_training",
    "csv_monitor",
    "curriculum_learning",
    "data_efficiency",
    "data_types",
    "dataloader_drop_last",
    "disable_allgather",
    "disable_python_gc",
    "dump_state",
    "elasticity",
    "expert_parallel",
    "flops_profiler",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_allreduce_op",
    "gradient_clipping",
    "gradient_predivide_factor",
    "hybrid_engine",
    "log_level",
    "managed_gradient_accumulation",
    "memory_breakdown",
    "nebula",
    "optimizer",
    "pipeline",
    "prescale_gradients",
    "scheduler",
    "seq_parallel_communication_data_type",
    "sparse_attention",
    "sparse_gradients",
    "steps_per_print",
    "tensor_parallel",
    "tensorboard",
    "timers",
    "torch_autocast",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "use_data_before_expert_parallelism",
    "vocabulary_size",
    "wall_clock_breakdown",
    "wandb",
    "weight_quantization",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""Top-level keys of https://www.deepspeed.ai/docs/config-json and of the parser of DeepSpeed 0.19."""

DECIDED: Mapping[str, str] = {
    "train_batch_size": "training.batch.global",
    "train_micro_batch_size_per_gpu": "training.batch.micro",
    "gradient_accumulation_steps": "training.batch.accumulation",
    "gradient_clipping": "training.clip_norm",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "bf16.enabled": "training.precision",
    "bfloat16": "training.precision",
    "fp16.enabled": "training.precision",
    "fp16.auto_cast": "training.precision",
    "amp": "training.precision",
    "torch_autocast": "training.precision",
    "fp16.loss_scale": "training.strategy.loss_scale.static",
    "fp16.initial_scale_power": "training.strategy.loss_scale.initial_power",
    "fp16.loss_scale_window": "training.strategy.loss_scale.window",
    "fp16.hysteresis": "training.strategy.loss_scale.hysteresis",
    "fp16.min_loss_scale": "training.strategy.loss_scale.minimum",
    "zero_optimization.stage": "training.strategy.stage",
    "zero_optimization.overlap_comm": "training.strategy.overlap_comm",
    "zero_optimization.contiguous_gradients": "training.strategy.contiguous_gradients",
    "zero_optimization.reduce_bucket_size": "training.strategy.bucket_mb",
    "zero_optimization.allgather_bucket_size": "training.strategy.bucket_mb",
    "zero_optimization.prefetch_bucket_size": "training.strategy.prefetch_mb",
    "zero_optimization.stage3_prefetch_bucket_size": "training.strategy.prefetch_mb",
    "zero_optimization.param_persistence_threshold": "training.strategy.persistence_kb",
    "zero_optimization.stage3_param_persistence_threshold": "training.strategy.persistence_kb",
    "zero_optimization.zero_hpz_partition_size": "training.strategy.secondary_shard",
    "zero_optimization.max_live_parameters": "training.strategy.max_live_millions",
    "zero_optimization.stage3_max_live_parameters": "training.strategy.max_live_millions",
    "zero_optimization.cpu_offload": "training.strategy.offload_optimizer",
    "zero_optimization.cpu_offload_param": "training.strategy.offload_param",
    **{
        f"zero_optimization.offload_{what}.{theirs}": f"training.strategy.offload_{what}.{ours}"
        for what in ("optimizer", "param")
        for theirs, ours in (
            ("device", "device"),
            ("nvme_path", "path"),
            ("pin_memory", "pin_memory"),
            ("buffer_count", "buffers"),
        )
    },
}
"""Prefixes of the dotted keys that a field of the config decides, and that field."""

OURS: Mapping[str, str] = {
    "activation_checkpointing": "use training.gradient_checkpointing",
    "autotuning": "give the sizes themselves",
    "checkpoint": "raystack writes the checkpoints: see training.checkpoint",
    "curriculum_learning": "raystack's sample order is a function of the seed",
    "data_efficiency": "raystack's sample order is a function of the seed",
    "data_types": "master weights and accumulated gradients are float32",
    "elasticity": "use resources.workers with min and max",
    "gradient_allreduce_op": "gradients are averaged over the workers",
    "hybrid_engine": "raystack trains with the plain engine",
    "managed_gradient_accumulation": "raystack's loop says which micro batch ends a step",
    "pipeline": "raystack splits batches and weights, not layers",
    "tensor_parallel": "raystack splits batches and weights, not layers",
    "expert_parallel": "raystack splits batches and weights, not layers",
    "zero_allow_untested_optimizer": "it follows from training.optimizer",
    "zero_force_ds_cpu_optimizer": "it follows from training.strategy.offload_optimizer",
    "bf16.bf16_master_weights_and_grads": "master weights are float32",
    "bf16.bf16_optimizer_states": "the optimizer's state is float32",
    "fp16.fp16_master_weights_and_grads": "master weights are float32",
    "zero_optimization.elastic_checkpoint": "raystack's checkpoints fit any number of workers",
    "zero_optimization.round_robin_gradients": "checkpoints need the weights in their own order",
    "zero_optimization.zenflow": "each step uses the gradients of its own batch",
    "zero_optimization.offload_optimizer.ratio": "the optimizer's state is offloaded whole",
    "zero_optimization.offload_optimizer.super_offload": (
        "the optimizer's state is offloaded by training.strategy.offload_optimizer"
    ),
}
"""Prefixes of the dotted keys that raystack decides without a field, and the reason or the alternative."""


MICS = ("zero_optimization.mics_shard_size", "zero_optimization.mics_hierarchical_params_gather")
"""Keys of what DeepSpeed has removed."""


def plan_deepspeed(strategy: Zero, training: Training, batch: Batch, workers: Workers) -> Mapping[str, Any]:
    """Return the exact JSON for `deepspeed.initialize`.

    The learning rate in it is the peak; the loop sets that of each step. Raises PlanError for a key of
    `extra` that DeepSpeed does not know or raystack decides.
    """
    if training.precision == "fp16" and strategy.stage == 0:
        rule = "fp16 needs stage 1, 2 or 3: at stage 0 DeepSpeed's engine does not scale the loss"
        raise PlanError(
            Problem(
                "training.precision", rule=rule, got="fp16", remedy="use strategy=zero1, or precision bf16"
            )
        )
    bytes_each = 4 if training.precision == "fp32" else 2
    decided: dict[str, Any] = {
        **batch_sizes(batch),
        "gradient_clipping": training.clip_norm or 0.0,
        **_optimizer(training.optimizer, strategy, workers),
        **_precision(training.precision, strategy),
        "zero_optimization": _zero(strategy, bytes_each),
    }
    if not isinstance(training.optimizer, AdamW | Adam):
        # Without it DeepSpeed refuses ZeRO for an optimizer that it has not tested.
        decided["zero_allow_untested_optimizer"] = True
    problems = [problem for key in strategy.extra if (problem := _unknown(key))]
    problems += [problem for key in _leaves(strategy.extra) if (problem := _taken(key) or _removed(key))]
    if problems:
        raise PlanError(problems)
    return _merged(decided, strategy.extra)


def batch_sizes(batch: Batch) -> dict[str, int]:
    """Return the keys that depend on the batch, and so on the number of workers."""
    return {
        "train_batch_size": batch.micro * batch.accumulation * batch.workers,
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.accumulation,
    }


def _optimizer(config: Optimizer, strategy: Zero, workers: Workers) -> dict[str, Any]:
    """Return the section of the optimizer; none for one that the task makes."""
    # Rate and weight decay are only the defaults: each parameter group brings its own.
    if isinstance(config, Own):
        return {}
    values: dict[str, Any] = {"lr": config.lr}
    match config:
        case SGD():
            values |= {"momentum": config.momentum, "nesterov": config.nesterov}
            values |= {"weight_decay": config.weight_decay, "fused": strategy.offload_optimizer is None}
            return _section("SGD", values)
        case RMSprop():
            values |= {"alpha": config.alpha, "eps": config.eps, "momentum": config.momentum}
            return _section("RMSprop", {**values, "weight_decay": config.weight_decay})
        case AdamW() | Adam():
            values |= {"betas": list(config.betas), "eps": config.eps, "weight_decay": config.weight_decay}
            if isinstance(config, Adam):
                values["adam_w_mode"] = False
            # Without `torch_adam` an offloaded optimizer is DeepSpeed's own Adam for CPUs, the faster one
            # there.
            if strategy.offload_optimizer is None or workers.device != "cuda":
                values |= {"torch_adam": True, "fused": True}
            return _section("AdamW" if isinstance(config, AdamW) else "Adam", values)
    raise AssertionError(f"the plan has refused {config.kind} under zero")


def _section(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"optimizer": {"type": name, "params": values}}


def _precision(precision: str, strategy: Zero) -> dict[str, Any]:
    """Return the sections for a precision, all with float32 master weights."""
    # Stage 0 cannot accumulate gradients in another type than the weights'.
    accumulate = (
        {} if precision == "fp32" or strategy.stage == 0 else {"data_types": {"grad_accum_dtype": "fp32"}}
    )
    match precision:
        case "bf16":
            return {"bf16": {"enabled": True}, **accumulate}
        case "fp16":
            return {"fp16": {"enabled": True, **_loss_scale(strategy.loss_scale)}, **accumulate}
    return {}


def _loss_scale(config: LossScale) -> dict[str, Any]:
    if config.static is not None:
        return {"loss_scale": config.static}
    # DeepSpeed takes 0 for a dynamic scale.
    return {
        "loss_scale": 0,
        "initial_scale_power": config.initial_power,
        "loss_scale_window": config.window,
        "hysteresis": config.hysteresis,
        "min_loss_scale": config.minimum,
    }


def _zero(strategy: Zero, bytes_each: int) -> dict[str, Any]:
    """Return the section of ZeRO itself."""
    # DeepSpeed counts its sizes in elements, the config in bytes.
    bucket = (strategy.bucket_mb << 20) // bytes_each
    values: dict[str, Any] = {"stage": strategy.stage}
    if strategy.stage == 0:
        return values
    values |= {
        "contiguous_gradients": strategy.contiguous_gradients,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if strategy.overlap_comm is not None:
        values["overlap_comm"] = strategy.overlap_comm
    if strategy.stage == 3:
        values |= {
            "stage3_prefetch_bucket_size": (strategy.prefetch_mb << 20) // bytes_each,
            "stage3_param_persistence_threshold": (strategy.persistence_kb << 10) // bytes_each,
            "stage3_max_live_parameters": strategy.max_live_millions * 1_000_000,
        }
    if strategy.secondary_shard is not None:
        values["zero_hpz_partition_size"] = strategy.secondary_shard
    if strategy.offload_optimizer is not None:
        values["offload_optimizer"] = _offload(strategy.offload_optimizer)
    if strategy.offload_param is not None:
        values["offload_param"] = _offload(strategy.offload_param)
    return values


def _offload(config: Offload) -> dict[str, Any]:
    values: dict[str, Any] = {"device": config.device, "pin_memory": config.pin_memory}
    if config.device == "nvme":
        values |= {"nvme_path": config.path, "buffer_count": config.buffers}
    return values


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that are not mappings, or are empty ones."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _unknown(key: str) -> Problem | None:
    if key in KEYS:
        return None
    close = nearest(key, KEYS)
    remedy = f"did you mean '{close}'?" if close else "see https://www.deepspeed.ai/docs/config-json"
    return Problem(
        f"training.strategy.extra.{key}", rule="DeepSpeed's JSON has no such key", got=key, remedy=remedy
    )


def _taken(key: str) -> Problem | None:
    """Return a problem for a key that is decided, below a decided one, or above some (`fp16: true`)."""
    remedies = {**{theirs: f"set {ours}" for theirs, ours in DECIDED.items()}, **OURS}
    remedy = next(
        (
            text
            for theirs, text in remedies.items()
            # With a dot at the end, so that only whole parts of a key match.
            if f"{key}.".startswith(f"{theirs}.") or theirs.startswith(f"{key}.")
        ),
        None,
    )
    if remedy is None:
        return None
    return Problem(f"training.strategy.extra.{key}", rule="raystack's config decides it", remedy=remedy)


def _removed(key: str) -> Problem | None:
    if key not in MICS:
        return None
    remedy = "use strategy=fsdp with training.strategy.shard, or training.strategy.secondary_shard"
    return Problem(f"training.strategy.extra.{key}", rule="DeepSpeed has removed MiCS", remedy=remedy)


def _merged(decided: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings that share no leaf."""
    result = dict(decided)
    for key, value in extra.items():
        ours = result.get(key)
        result[key] = (
            _merged(ours, value) if isinstance(ours, Mapping) and isinstance(value, Mapping) else value
        )
    return result
