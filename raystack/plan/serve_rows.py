"""The rows of a plan that serves."""

from raystack.config.serving import Multiplexed, Serving
from raystack.plan.llm import devices
from raystack.plan.serving import ServePlan
from raystack.plan.study_rows import Row


def serve_rows(plan: ServePlan) -> list[Row]:
    """Return what is served, and how."""
    return [
        *([("server", plan.url)] if plan.several else []),
        *(row for model in plan.models for row in _model_rows(model)),
        *(_shared_rows(plan, plan.serving.multiplexed) if plan.serving.multiplexed is not None else []),
        *([("grpc", plan.grpc_address)] if plan.grpc_address is not None else []),
        ("tracking", plan.tracking.uri or "not needed"),
    ]


def _shared_rows(plan: ServePlan, shared: Multiplexed) -> list[Row]:
    needs = f"{shared.cpus_per_replica:g} CPU and {shared.gpus_per_replica:g} GPU each"
    return [
        ("shared", f"{len(shared.models)} models, up to {shared.max_loaded} in the memory of a replica"),
        *((f"{name}", f"{own.model} at {plan.url}/models/{name}") for name, own in shared.models.items()),
        ("replicas", f"{shared.replicas}, {needs}"),
    ]


def _model_rows(plan: ServePlan) -> list[Row]:
    serving, scaling = plan.serving, plan.serving.autoscaling
    needs = f"{serving.cpus_per_replica:g} CPU and {serving.gpus_per_replica:g} GPU each"
    count = f"{serving.replicas}"
    if scaling is not None:
        count = (
            f"{scaling.min_replicas} to {scaling.max_replicas} by {scaling.target_ongoing:g} requests each"
        )
    return [
        ("model", plan.model),
        ("name", plan.name),
        ("url", plan.url),
        ("replicas", f"{count}, {needs}, {serving.threads} thread(s)"),
        *(
            _llm_rows(serving)
            if serving.kind == "llm"
            else [("batching", f"up to {serving.batching.max_size} samples, {serving.batching.wait_ms:g} ms")]
        ),
        ("requests", f"{serving.max_ongoing} at a time per replica, {serving.max_queued} may wait"),
        *_split_rows(serving),
        *([("verified", "signatures are checked before a model is loaded")] if serving.verify else []),
    ]


def _split_rows(serving: Serving) -> list[Row]:
    split = serving.split
    if split is None:
        return []
    rows = [
        ("version", f"{model} answers {share:.4g} of the requests") for model, share in split.models.items()
    ]
    if split.sticky is not None:
        by = f"header {split.sticky.header}" if split.sticky.header else f"input {split.sticky.input}"
        rows.append(("sticky", f"requests of one {by} stay with a version"))
    if split.shadow is not None:
        rows.append(
            ("shadow", f"{split.shadow.model} gets copies of {split.shadow.share:.4g} of the requests")
        )
    return rows


def _llm_rows(serving: Serving) -> list[Row]:
    llm = serving.llm
    length = "as long as the model's" if llm.max_model_len is None else f"of up to {llm.max_model_len} tokens"
    given = ", ".join(f"{name}={value}" for name, value in llm.engine_kwargs.items())
    return [
        ("generates", f"with vLLM, {llm.dtype}, texts {length}, {devices(serving)} device(s) a copy"),
        *(("adapter", f"{name}: {adapter}") for name, adapter in llm.adapters.items()),
        *([("vLLM", given)] if given else []),
    ]
