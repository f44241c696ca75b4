"""A graph answers what its steps answer one after the other; one whose steps do not fit is refused."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
import torch
import yaml

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.config import RunConfig, load
from raystack.config.graph import Dtype
from raystack.config.serving import Serving
from raystack.config.telemetry import Telemetry
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, PlanError, ServingError
from raystack.plan import plan_serving
from raystack.plan.prediction import PredictRequest, plan_prediction
from raystack.serving.builder import sections
from raystack.serving.host import Host
from raystack.serving.pin import pin
from raystack.serving.predictor import Predictor
from raystack.task import Dtype as TaskDtype
from raystack.task import Signature, TensorSpec

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"

pytestmark = pytest.mark.usefixtures("threads")

TASK = """
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Task:
    def __init__(self, sizes): self.sizes = sizes
    @property
    def signature(self):
        outputs = (TensorSpec("y", "float32", (-1, self.sizes[1])), TensorSpec("label", "int64", (-1,)))
        return Signature((TensorSpec("x", "float32", (-1, self.sizes[0])),), outputs)
    def model(self): return nn.Linear(abs(self.sizes[0]), self.sizes[1])
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        if bool((x == 13).any()): raise ValueError("a bad sample")
        y = model(x)
        return {"y": y, "label": y.argmax(1)}
"""

FUNCTIONS = """
import time

import numpy as np

NAMES = np.array([b"no", b"yes", b"perhaps"], object)

def scale(inputs): return {"scaled": inputs["pixels"].astype(np.float32) / 255}
def slow(inputs):
    if (inputs["pixels"] == 7).any(): time.sleep(0.2)
    return scale(inputs)

def name(inputs): return {"name": NAMES[inputs["label"]]}
def wrong(inputs): return {"scaled": inputs["pixels"]}
def raises(inputs): raise KeyError("no such thing")
"""

PIXELS = {"pixels": {"dtype": "uint8", "shape": [-1, 4]}}
SCALED = {"scaled": {"dtype": "float32", "shape": [-1, 4]}}
SCALE = {"function": "graph_functions:scale", "takes": PIXELS, "gives": SCALED}
NAME = {
    "function": "graph_functions:name",
    "inputs": {"label": "two.label"},
    "takes": {"label": {"dtype": "int64", "shape": [-1]}},
    "gives": {"name": {"dtype": "bytes", "shape": [-1]}},
}
SAMPLES = [[0, 50, 100, 150], [255, 1, 2, 3], [9, 99, 19, 199]]

Write = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Write:
    """Writes a checkpoint of a linear model of some sizes and returns its folder."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "graph_task.py").write_text(TASK, encoding="utf-8")

    def write(seed: int, sizes: tuple[int, int] = (4, 3)) -> str:
        folder = tmp_path / f"model-{seed}"
        folder.mkdir()
        torch.manual_seed(seed)
        signature = Signature(
            (TensorSpec("x", "float32", (-1, sizes[0])),),
            (TensorSpec("y", "float32", (-1, sizes[1])), TensorSpec("label", "int64", (-1,))),
        )
        card = ModelSpec("graph_task:Task", {"sizes": sizes}, signature, "demo-1", seed, {})
        write_spec(folder, card, pack(code))
        write_weights(folder, torch.nn.Linear(abs(sizes[0]), sizes[1]).state_dict())
        return str(folder)

    return write


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module of functions."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "graph_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


def of(steps: dict[str, Any], **outputs: str) -> Serving:
    graph = {"steps": steps, "outputs": outputs}
    values = {"name": "demo", "graph": graph, "telemetry": {"metrics": False}}
    return Serving.model_validate(values, strict=False)


def client(host: Host) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://host/v2/models/demo")


def body(name: str, datatype: str, values: Sequence[Sequence[float]]) -> dict[str, Any]:
    shape = [len(values), len(values[0])]
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": values}]}


def answers(serving: Serving, *bodies: dict[str, Any]) -> list[httpx.Response]:
    """Answers over REST to requests that come at the same time."""

    async def run() -> list[httpx.Response]:
        host = Host("demo", Tracking(kind="off"))
        await host.apply(serving)
        async with client(host) as asked:
            return await asyncio.gather(*(asked.post("/infer", json=each) for each in bodies))

    return asyncio.run(run())


def outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer.json()["outputs"]}


def test_a_chain_answers_what_its_steps_answer(model: Write) -> None:
    one, two = model(1, (4, 5)), model(2, (5, 3))
    steps = {
        "name": NAME,  # before what it needs, as a sorted mapping has it
        "two": {"model": two, "inputs": {"x": "one.y"}},
        "one": {"model": one, "inputs": {"x": "scale.scaled"}},
        "scale": SCALE,
    }
    serving = of(steps, y="two.y", name="name.name")
    first, *others = answers(serving, *(body("pixels", "UINT8", SAMPLES[: n + 1]) for n in (2, 0, 1)))
    scaled = np.array(SAMPLES, np.float32) / 255
    by_hand = Predictor.load(two).predict({"x": Predictor.load(one).predict({"x": scaled})["y"]})
    found = outputs(first)
    np.testing.assert_allclose(found["y"], by_hand["y"], rtol=1e-5)
    names = np.array(["no", "yes", "perhaps"])
    assert found["name"].tolist() == names[by_hand["label"]].tolist()
    for answer in others:
        np.testing.assert_allclose(outputs(answer)["y"], by_hand["y"][: len(outputs(answer)["y"])], rtol=1e-5)


@pytest.mark.parametrize("weights", [{}, {"a": 3.0, "c": 0.5}])
def test_an_ensemble_averages_and_votes(model: Write, weights: dict[str, float]) -> None:
    folders = {name: model(seed) for seed, name in enumerate("abc")}
    steps: dict[str, Any] = {name: {"model": folder} for name, folder in folders.items()}
    steps["mean"] = {"combine": "mean", "weights": weights, "inputs": {name: f"{name}.y" for name in "abc"}}
    steps["vote"] = {"combine": "vote", "weights": weights, "inputs": {n: f"{n}.label" for n in "abc"}}
    samples = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    (answer,) = answers(
        of(steps, y="mean.combined", label="vote.combined"), body("x", "FP32", samples.tolist())
    )
    each = {name: Predictor.load(folder).predict({"x": samples}) for name, folder in folders.items()}
    shares = torch.tensor([weights.get(name, 1.0) for name in "abc"])
    stacked = torch.stack([torch.from_numpy(each[name]["y"]) for name in "abc"])
    mean = (stacked * shares[:, None, None]).sum(0) / shares.sum()
    np.testing.assert_allclose(outputs(answer)["y"], mean, rtol=1e-4, atol=1e-6)
    votes = sum(
        torch.nn.functional.one_hot(torch.from_numpy(each[name]["label"]), 3) * weights.get(name, 1.0)
        for name in "abc"
    )
    assert outputs(answer)["label"].tolist() == torch.as_tensor(votes).argmax(1).tolist()


def test_the_graph_is_a_model_of_the_protocol(model: Write) -> None:
    async def run() -> None:
        host = Host("demo", Tracking(kind="off"))
        await host.apply(
            of({"scale": SCALE, "two": {"model": model(7), "inputs": {"x": "scale.scaled"}}}, y="two.y")
        )
        async with client(host) as asked:
            described = (await asked.get("")).json()
            assert described["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 4]}]
            assert described["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
            outputs(await asked.post("/infer", json=body("pixels", "UINT8", SAMPLES)))
            stats = (await asked.get("/stats")).json()["model_stats"]
            assert [each["name"] for each in stats] == ["demo", "demo.scale", "demo.two"]
            assert stats[2]["version"] == "7"
            assert stats[0]["inference_stats"]["success"]["count"] == 1
            assert stats[2]["inference_count"] >= 3

    asyncio.run(run())


def test_an_error_names_the_step_and_fails_one_request(model: Write) -> None:
    steps = {"one": {"model": model(1)}, "other": {"model": model(2)}}
    serving = of(steps, y="one.y", z="other.y")
    bad, good = answers(serving, body("x", "FP32", [[13, 0, 0, 0]]), body("x", "FP32", [[1, 0, 0, 0]]))
    assert bad.status_code == 500
    assert "step 'one'" in bad.json()["error"]
    assert "a bad sample" in bad.json()["error"]
    assert good.status_code == 200


def test_a_request_whose_time_is_up_ends_and_the_next_is_answered(model: Write) -> None:
    async def run() -> None:
        slow = {**SCALE, "function": "graph_functions:slow"}
        one = {"model": model(1), "inputs": {"x": "slow.scaled"}}
        serving = of({"slow": slow, "one": one}, y="one.y")
        host = Host("demo", Tracking(kind="off"))
        await host.apply(serving.model_copy(update={"timeout_s": 5.0}))
        async with client(host) as asked:
            late = {"parameters": {"timeout": 20_000}}
            late_answer = await asked.post("/infer", json=body("pixels", "UINT8", [[7, 0, 0, 0]]) | late)
            assert late_answer.status_code == 504
            outputs(await asked.post("/infer", json=body("pixels", "UINT8", SAMPLES)))

    asyncio.run(run())


def test_a_free_size_that_a_step_does_not_take_is_the_clients_error(model: Write) -> None:
    takes = {"pixels": {"dtype": "uint8", "shape": [-1, -1]}}
    free = {"scaled": {"dtype": "float32", "shape": [-1, -1]}}
    steps = {
        "scale": {**SCALE, "takes": takes, "gives": free},
        "one": {"model": model(1, (1, 3)), "inputs": {"x": "scale.scaled"}},
    }
    wrong, right = answers(
        of(steps, y="one.y"), body("pixels", "UINT8", SAMPLES), body("pixels", "UINT8", [[3]])
    )
    assert (wrong.status_code, right.status_code) == (400, 200)
    assert "step 'one', input 'x': the step takes float32[-1, 1] (got shape [3, 4])" in wrong.json()["error"]


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("graph_functions:scael", "did you mean 'graph_functions:scale'?"),
        ("graph_nothing:scale", "graph_nothing cannot be imported"),
        ("graph_functions:wrong", "output 'scaled' should be float32[-1, 4]"),
        ("graph_functions:raises", "step 'scale': raised KeyError: 'no such thing'"),
    ],
)
def test_a_function_that_is_wrong_is_not_served(function: str, error: str) -> None:
    host = Host("demo", Tracking(kind="off"))
    with pytest.raises(ServingError) as raised:
        asyncio.run(host.apply(of({"scale": {**SCALE, "function": function}}, y="scale.scaled")))
    assert error in str(raised.value)


def test_another_step_is_taken_over_whole_or_not_at_all(model: Write) -> None:
    async def run() -> None:
        def pair(second: str) -> Serving:
            return of({"one": {"model": first}, "other": {"model": second}}, y="one.y", z="other.y")

        first, host = model(1), Host("demo", Tracking(kind="off"))
        await host.apply(pair(model(2)))
        async with client(host) as asked:
            request = body("x", "FP32", [[1, 2, 3, 4]])
            before = (await asked.post("/infer", json=request)).json()
            with pytest.raises((ConfigError, ServingError), match="step 'other'"):
                await host.prepare(pair("/nothing"))
            assert (await asked.post("/infer", json=request)).json() == before
            changed = pair(model(3))
            version = await host.prepare(changed)
            assert (await asked.post("/infer", json=request)).json() == before
            await host.apply(changed)
            after = (await asked.post("/infer", json=request)).json()
            assert after["model_version"] == version != before["model_version"]
            assert after["outputs"][0] == before["outputs"][0]
            assert after["outputs"][1] != before["outputs"][1]

    asyncio.run(run())


def config(tmp_path: Path, serving: dict[str, Any], **others: Any) -> RunConfig:
    path = tmp_path / "config.yaml"
    values = {
        "experiment": {"name": "demo"},
        "task": {"entry": "graph_task:Task"},
        "training": {"steps": 1, "batch": {"global": 8}},
        "serving": serving,
        **others,
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load(path)


COMBINE = {"combine": "mean", "inputs": {"a": "one.y", "b": "other.y"}}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"one": {"inputs": {"x": "scale.scald"}}},
            "one.inputs.x: is no output of step 'scale' (got 'scald')",
        ),
        ({"one": {"inputs": {"z": "scale.scaled"}}}, "one.inputs.z: is no input of the step"),
        ({"one": {"inputs": {"z": "scale.scaled"}}}, "also has to say where 'x' comes from"),
        (
            {"one": {"inputs": {"x": "other.label"}}},
            "the step takes float32[-1, 4] (got 'other.label', which is",
        ),
        ({"one": {"inputs": {"x": "other.y"}}}, "(got 'other.y', which is float32[-1, 5])"),
        (
            {"one": {"inputs": {"x": "pixels"}}},
            "takes uint8[-1, 4], and another one takes 'pixels' as float32[-1, 4]",
        ),
        ({"both": COMBINE}, "both.inputs.b: should be float32[-1, 3], as the first input"),
        ({"both": {**COMBINE, "combine": "vote"}}, "vote is for labels, which are no floats"),
        ({"one": {"model": "/nothing"}}, "serving.graph.steps.one.model: "),
        (
            {"one": {"inputs": {"x": "sale.scaled"}}},
            "names step 'sale', which there is not; did you mean 'scale'?",
        ),
        ({"other": {"inputs": {"x": "one.y"}}, "one": {"inputs": {"x": "other.y"}}}, "in a circle: "),
        ({"one": {"function": "a:b"}}, "should have one of model, function and combine"),
        ({"scale": {"takes": {}}}, "needs takes and gives"),
        ({"scale": {"function": "scale"}}, "should be a function, written module:name"),
        ({"both": {**COMBINE, "weights": {"c": 1.0}}}, "names 'c', which is none of the inputs"),
    ],
)
def test_steps_that_do_not_fit_are_refused_before_serve_starts(
    model: Write, tmp_path: Path, changes: dict[str, Any], error: str
) -> None:
    steps: dict[str, Any] = {
        "scale": SCALE,
        "one": {"model": model(1), "inputs": {"x": "scale.scaled"}},
        "other": {"model": model(2, (4, 5))},
    }
    steps |= {name: {**steps.get(name, {}), **change} for name, change in changes.items()}
    with pytest.raises(ConfigError) as raised:
        pin(plan_serving(config(tmp_path, {"graph": {"steps": steps, "outputs": {"y": "one.y"}}})))
    assert error in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("one.z", "serving.graph.outputs.y: is no output of step 'one' (got 'z')"),
        ("x", "outputs.y should be step.output, and is 'x'"),
        ("two.y", "outputs.y names step 'two', which there is not"),
    ],
)
def test_outputs_are_those_of_steps(model: Write, tmp_path: Path, output: str, error: str) -> None:
    graph = {"steps": {"one": {"model": model(1)}}, "outputs": {"y": output}}
    with pytest.raises(ConfigError) as raised:
        pin(plan_serving(config(tmp_path, {"graph": graph})))
    assert error in str(raised.value)


def test_a_graph_is_in_place_of_a_model(model: Write, tmp_path: Path) -> None:
    graph = {"steps": {"one": {"model": model(1)}}, "outputs": {"y": "one.y"}}
    with pytest.raises(ConfigError, match="exclude each other"):
        config(tmp_path, {"model": model(2), "graph": graph})
    served = config(tmp_path, {"graph": graph})
    with pytest.raises(PlanError, match="predictions are made with one model, and no graph"):
        plan_prediction(served, PredictRequest(inputs=("a.csv",), out="out"), [], "1")


def test_a_graph_is_among_what_serve_changes_in_place(model: Write, tmp_path: Path) -> None:
    graph = {"steps": {"one": {"model": model(1)}}, "outputs": {"y": "one.y"}}
    plan = pin(plan_serving(config(tmp_path, {"name": "demo", "graph": graph})))
    constant, options = plan.split()
    assert "graph" not in constant
    assert options["user_config"]["graph"]["steps"]["one"]["model"] == str(tmp_path / "model-1")
    assert plan.model == f"graph of one ({tmp_path / 'model-1'})"
    json.dumps(options["user_config"])
    serving, _ = sections({**constant, "graph": options["user_config"]["graph"]})
    assert serving.graph == plan.serving.graph


def test_an_alias_in_a_graph_is_followed_by_the_deployment_and_no_replica(tmp_path: Path) -> None:
    graph = {"steps": {"one": {"model": "models:/a@champion"}}, "outputs": {"y": "one.y"}}
    serving = {"name": "demo", "graph": graph}
    values = {"tracking": {"kind": "mlflow", "uri": "http://mlflow:5000"}}
    plan = plan_serving(config(tmp_path, serving, **values))
    assert plan.tracking.uri == "http://mlflow:5000", "its models are the registry's"
    constant, options = plan.split()
    assert "graph" not in options["user_config"]
    assert sections(constant)[0].graph == plan.serving.graph


def test_a_model_of_several_may_be_a_graph(model: Write, tmp_path: Path) -> None:
    graph: dict[str, Any] = {"steps": {"one": {"model": model(1)}}, "outputs": {"y": "one.y"}}
    plan = pin(plan_serving(config(tmp_path, {"models": {"a": {"graph": graph}, "b": {"model": model(2)}}})))
    assert [each.serving.graph is not None for each in plan.models] == [True, False]
    graph["outputs"]["y"] = "one.z"
    with pytest.raises(ConfigError, match=r"serving\.models\.a\.graph\.outputs\.y"):
        pin(plan_serving(config(tmp_path, {"models": {"a": {"graph": graph}}})))


def test_the_graph_of_the_page_answers(model: Write, tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## A graph of models and functions")[2]
    written, code = (
        re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)[0] for kind in ("yaml", "python")
    )
    (tmp_path / "functions" / "flowers.py").write_text(code, encoding="utf-8")
    small, large = model(1), model(2)
    for reference, folder in (("models:/flowers_small@champion", small), ("models:/flowers_large/7", large)):
        assert reference in written
        written = written.replace(reference, folder)
    plan = pin(plan_serving(config(tmp_path, yaml.safe_load(written)["serving"])))
    request = body("millimetres", "INT64", [[51, 35, 14, 2], [67, 31, 47, 15]])
    (answer,) = answers(plan.serving.model_copy(update={"telemetry": Telemetry(metrics=False)}), request)
    x = np.array(request["inputs"][0]["data"], np.float32) / 10
    each = [Predictor.load(folder).predict({"x": x})["y"] for folder in (small, large)]
    np.testing.assert_allclose(outputs(answer)["scores"], (each[0] + 2 * each[1]) / 3, rtol=1e-4)
    assert set(outputs(answer)["name"].tolist()) <= {"setosa", "versicolor", "virginica"}


def test_types_are_those_of_a_signature() -> None:
    assert get_args(Dtype) == get_args(TaskDtype)
