"""A language model's part of the config and of the plan."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from raystack.config import load
from raystack.errors import ConfigError, PlanError
from raystack.plan import plan_prediction, plan_serving
from raystack.plan.describe import rows
from raystack.plan.prediction import PredictRequest

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
LLM = ["serving.kind=llm", "serving.model=/models/story", "serving.name=story"]


def test_the_plan_shows_what_is_generated_with() -> None:
    own = ["serving.llm={max_model_len: 64, adapters: {poet: 's3://b/poet'}, engine_kwargs: {seed: 3}}"]
    shown = dict(rows(plan_serving(load(TINY, [*LLM, *own, "serving.gpus_per_replica=2"]))))
    assert shown["url"] == "http://127.0.0.1:8000/v1"
    assert shown["generates"] == "with vLLM, auto, texts of up to 64 tokens, 2 device(s) a copy"
    assert (shown["adapter"], shown["vLLM"]) == ("poet: s3://b/poet", "seed=3")
    assert "batching" not in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["serving.precision=bf16"], "serving: has no meaning for a language model, kind llm (got precision"),
        (["serving.batching.max_size=2"], "set serving.llm.engine_kwargs.max_num_seqs"),
        (["serving.grpc_port=9"], "(got grpc_port 9); OpenAI's API is for HTTP"),
        (["serving.telemetry.otlp='http://a:1'"], "set serving.llm.engine_kwargs.otlp_traces_endpoint"),
        (["serving.models={a: {model: /a}}"], "serve each language model for itself"),
        (["serving.kind=model", "serving.llm.dtype=float32"], "is for kind llm alone"),
        (["serving.kind=lm"], "serving.kind: should be model or llm (got 'lm'); did you mean 'llm'?"),
        (["serving.llm.dtyp=auto"], "serving.llm.dtyp: unknown key (got 'auto'); did you mean 'dtype'?"),
        (["serving.llm.engine_kwargs={dtype: half}"], "'dtype', which serving.llm.dtype is for"),
        (["serving.llm.engine_kwargs={uds: a}"], "'uds', which is decided by where vLLM runs"),
        (["serving.llm.adapters={poet: 'models:/poet'}"], "adapters.poet: should be models:/name@alias"),
    ],
)
def test_what_says_nothing_of_a_language_model_is_refused(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(TINY, [*LLM, *overrides])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["serving.gpus_per_replica=2", "serving.llm.tensor_parallel_size=4"],
            "set serving.gpus_per_replica=4",
        ),
        (["serving.gpus_per_replica=0.5", "serving.llm.tensor_parallel_size=2"], "a replica has 0.5 (got 2)"),
        (["serving.cpus_per_replica=0"], "serving.cpus_per_replica: has to be more than 0"),
    ],
)
def test_a_copy_has_the_devices_of_a_replica(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(PlanError) as raised:
        plan_serving(load(TINY, [*LLM, *overrides]))
    assert message in str(raised.value)


def test_whole_files_are_not_predicted_with_a_language_model() -> None:
    with pytest.raises(PlanError, match=r"serving\.kind: predictions are made with other models"):
        plan_prediction(load(TINY, LLM), PredictRequest(("/a.csv",), "/out"), (), "tiny-1")
