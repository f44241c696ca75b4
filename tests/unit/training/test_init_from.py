"""Weights that a run begins with: from a checkpoint, a run, a model or the registry, all of them or some by
name, once, and the same under every strategy.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from begun.task import Net
from begun_workers import BEGUN, lines, losses, model_of, on_workers, planned, run
from torch import nn

from raystack.checkpoint import MODEL, CheckpointStore, read_spec
from raystack.checkpoint.export import export_to
from raystack.config import dump, load
from raystack.config.initial import InitFrom
from raystack.errors import ConfigError
from raystack.events import Event, Initialised, Started, Warned
from raystack.plan import plan_training
from raystack.training.driver.fit import fit
from raystack.training.driver.initial import settled
from raystack.training.fitting import fit as fit_names
from raystack.training.origin import read_origins

ONE = "training={epochs: null, steps: 1}"
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage with a run `source` of five steps, whose last checkpoint alone has exported weights."""
    storage = tmp_path_factory.mktemp("source")
    run(storage, "training.checkpoint={every_steps: 2, keep_last: 9}", name="source")
    return storage


def checkpoints(storage: Path, name: str = "source") -> Path:
    return Path(planned(storage, run=name).paths.checkpoints)


def init_from(source: object, **more: Any) -> str:
    inside = [f"source: '{source}'", *(f"{key}: {json.dumps(value)}" for key, value in more.items())]
    return f"training.init_from={{{', '.join(inside)}}}"


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Initialised)]


def weights(model: nn.Module) -> list[float]:
    return torch.cat([one.detach().flatten() for one in model.parameters()]).tolist()


def after_one_step(storage: Path, begins: nn.Module) -> nn.Module:
    """What a plain loop makes of a model in the first step of a run with a new optimizer."""
    plan = planned(storage)
    from begun.task import Begun

    task = Begun()
    config: Any = plan.training.optimizer
    groups = [
        {"params": [one for one in begins.parameters() if (one.dim() >= 2) is decays], "weight_decay": decay}
        for decays, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    samples = lines(storage, "0")[0]["samples"]
    task.loss(begins, task.collate([task.data[index] for index in samples])).backward()
    optimizer.step()
    return begins


@pytest.mark.slow
@pytest.mark.parametrize("form", ["checkpoint", "exported", "run", "checkpoints", "model", "url"])
def test_a_run_begins_with_the_weights_of_a_checkpoint_a_run_or_a_model(
    source: Path, tmp_path: Path, form: str
) -> None:
    folder = checkpoints(source)
    place = {
        "checkpoint": folder / "step-0000000002",  # without exported weights
        "exported": folder / "step-0000000005",
        "run": folder.parent,
        "checkpoints": folder,
        "model": folder / "step-0000000005" / "model",
        "url": f"file://{folder}/step-0000000005/",
    }[form]
    events = run(tmp_path, f"training.init_from={place}", ONE)
    assert lines(tmp_path, "model")[0] == {"restored": True}  # the task's own weights are of no use

    step = 2 if form == "checkpoint" else 5
    (text,) = said(events)
    assert text == f"weights of {place} (run source, step {step}): loaded 6 of 6 tensors"
    begins = exported(source, step, tmp_path)
    assert weights(model_of(tmp_path)) == pytest.approx(weights(after_one_step(tmp_path, begins)), rel=1e-5)

    store = CheckpointStore(planned(tmp_path).paths.checkpoints)
    with store.fetch(1, MODEL) as model:
        assert read_spec(model).init_from == {"source": str(place), "run_id": "source", "step": step}


def exported(storage: Path, step: int, scratch: Path) -> nn.Module:
    from raystack.checkpoint.weights import read_model

    store = CheckpointStore(str(checkpoints(storage)))
    manifest = next(one for one in store.manifests() if one.step == step)
    export_to(store, manifest, scratch / "exported")
    return read_model(scratch / "exported")[1].train()


@pytest.mark.slow
def test_a_resumed_run_does_not_read_the_source_again(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoints(source) / "step-0000000005", copy)
    whole = losses(run(tmp_path, init_from(copy), name="whole"))
    run(tmp_path, init_from(copy), "training={epochs: null, steps: 2}", name="halves")
    shutil.rmtree(copy)
    events = run(tmp_path, init_from(copy), name="halves")
    assert not said(events)
    assert losses(events) == {step: whole[step] for step in (3, 4, 5)}
    store = CheckpointStore(str(checkpoints(tmp_path, "halves")))
    with store.fetch(5, MODEL) as model:
        assert read_spec(model).init_from == {"source": str(copy), "run_id": "source", "step": 5}
    with pytest.raises(ConfigError, match=r"training.init_from: there are no weights in it \(got .*/copy\)"):
        run(tmp_path, init_from(copy), name="new")


@pytest.mark.slow
def test_the_run_s_chosen_checkpoint_counts_and_a_damaged_one_is_told(source: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints(source).parent, tmp_path / "source")
    newest = tmp_path / "source" / "checkpoints" / "step-0000000005"
    file = newest / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")
    events = run(tmp_path, init_from(tmp_path / "source"), ONE)
    assert said(events)[0].startswith(f"weights of {tmp_path}/source (run source, step 4)")
    (warning,) = [event.text for event in events if isinstance(event, Warned)]
    assert "model.safetensors" in warning
    assert "step-0000000004 is used" in warning
    for damaged in (newest, newest / "model"):
        with pytest.raises(ConfigError, match=r"training.init_from: .*model.safetensors: the SHA-256"):
            run(tmp_path, init_from(damaged), name="of-the-damaged")


@pytest.mark.slow
def test_the_best_checkpoint_of_a_finished_run_is_its_result(tmp_path: Path) -> None:
    # The loss rises with a rate like this, so the first checkpoint is the best one.
    best = "training.checkpoint={every_steps: 1, keep_last: 9, keep_best: {metric: eval/loss, mode: min}}"
    plan = planned(tmp_path, best, "training.optimizer.lr=5.0", run="best")
    outcome = fit(plan, lambda event: None, resume=False)
    step = int((outcome.checkpoint or "").rpartition("-")[2])
    assert step < 5
    (text,) = said(run(tmp_path, init_from(plan.paths.folder), ONE))
    assert f"(run best, step {step})" in text


def net(classes: int = 4, fill: float | None = None) -> Net:
    made = Net(classes)
    if fill is not None:
        for parameter in made.parameters():
            nn.init.constant_(parameter, fill)
    return made


def test_names_are_chosen_by_patterns_and_renamed() -> None:
    model, stored = net(), net(5, fill=7.0).state_dict()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit_names(model, stored, InitFrom(source="x", match=("embed*", "trunk.*")), "x")
    names = "scale, head.weight, head.bias"
    assert str(fitted) == f"loaded 3 of 6 tensors; fresh: {names}; not used: {names}"
    assert model.state_dict()["trunk.0.weight"].unique().tolist() == [7]
    assert torch.equal(model.head.weight, fresh["head.weight"])

    other = {name.replace("trunk.", "encoder.body."): value for name, value in stored.items()}
    model = net()
    config = InitFrom(source="x", match="trunk.*", rename={"encoder.body.": "trunk."})
    assert fit_names(model, other, config, "x").loaded == ("trunk.0.weight", "trunk.0.bias")
    assert model.state_dict()["trunk.0.bias"].unique().tolist() == [7]


def test_what_does_not_fit_is_named_unless_it_may_stay() -> None:
    stored = net(5).state_dict()
    before = net()
    with pytest.raises(ConfigError) as raised:
        fit_names(before, stored, InitFrom(source="x"), "models:/x/1")
    assert "'head.weight' has shape [5, 8] there and [4, 8] in the model (got models:/x/1)" in str(
        raised.value
    )
    assert "strict: false" in str(raised.value)
    fitted = fit_names(net(), stored, InitFrom(source="x", strict=False), "x")
    assert (fitted.loaded, fitted.fresh) == (
        ("embed.weight", "trunk.0.weight", "trunk.0.bias"),
        ("scale", "head.weight", "head.bias"),
    )
    less = {name: value for name, value in net().state_dict().items() if name != "head.bias"}
    with pytest.raises(ConfigError, match=r"has not all that is to be loaded \(got without head.bias\)"):
        fit_names(net(), less, InitFrom(source="x"), "x")
    more = {**net().state_dict(), "old.weight": torch.ones(1)}
    with pytest.raises(ConfigError, match=r"x has what the model has not \(got old.weight\)"):
        fit_names(net(), more, InitFrom(source="x"), "x")
    with pytest.raises(
        ConfigError, match=r"match: matches no parameter .*\(got embed.wieght\); did you mean 'embed.weight"
    ):
        fit_names(net(), stored, InitFrom(source="x", match=("trunk.*", "embed.wieght")), "x")
    with pytest.raises(
        ConfigError, match=r"nothing there fits the model \(got x\); it has a.weight; the model"
    ):
        fit_names(net(), {"a.weight": torch.ones(1)}, InitFrom(source="x", strict=False), "x")


def test_tied_weights_are_loaded_by_either_name() -> None:
    one, other, single = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    tied = nn.ModuleDict({"a": one, "b": other})
    for name in ("a", "b"):
        stored = {f"{name}.weight": single.weight, "a.bias": single.bias, "b.bias": single.bias}
        fit_names(tied, stored, InitFrom(source="x"), "x")
        assert torch.equal(other.weight, single.weight)
        nn.init.zeros_(one.weight)


def test_a_source_alone_is_a_section() -> None:
    config = load(BEGUN, ["training.init_from=models:/digits@champion"])
    assert config.training.init_from == InitFrom(source="models:/digits@champion")
    assert "source: models:/digits@champion" in dump(config)
    assert load(BEGUN).training.init_from is None


PLANS = [
    *((strategy, [f"strategy={strategy}"]) for strategy in STRATEGIES),
    ("bf16", ["strategy=fsdp", "training.precision=bf16"]),
]


@pytest.mark.slow
def test_a_run_begins_alike_under_every_strategy_and_goes_on_on_one_worker(
    source: Path, tmp_path: Path
) -> None:
    place = init_from(checkpoints(source).parent, match=["embed.*", "trunk.*"])
    first, then = "training={epochs: null, steps: 3}", "training={epochs: 1, steps: null}"
    plans = [(name, [place, *options, first], [then]) for name, options in PLANS]
    plans.append(("refused", ["strategy=zero3", place, "task.args.classes=5", init_from(source)], []))
    ended = on_workers(tmp_path, plans, 2, 1)
    expected = losses(run(tmp_path, place, name="alone"))
    fresh = losses(run(tmp_path, name="fresh"))
    assert abs(expected[1] - fresh[1]) > 1e-3
    for name, _ in PLANS:
        together = {int(step): loss for count in (2, 1) for step, loss in ended[count][name].items()}
        assert together == pytest.approx(expected, rel=2e-2 if name == "bf16" else 2e-6), name
    assert "training.init_from: there are no weights in it" in ended[2]["refused"]


@pytest.mark.slow
def test_weights_come_from_an_object_store(source: Path, tmp_path: Path, object_store: object) -> None:
    store = fsspec.filesystem("s3")
    store.mkdir("begun-weights")
    for step in (2, 5):
        name = f"step-{step:010d}"
        store.put(str(checkpoints(source) / name), f"begun-weights/run/checkpoints/{name}", recursive=True)
    alike = []
    for name, place in {
        "run": "s3://begun-weights/run",
        "model": "s3://begun-weights/run/checkpoints/step-0000000005/model",
        "state": "s3://begun-weights/run/checkpoints/step-0000000002",
    }.items():
        events = run(tmp_path, init_from(place), ONE, name=name)
        assert said(events)
        alike.append(losses(events)[1])
    assert alike[0] == alike[1] != alike[2]
    with pytest.raises(ConfigError, match=r"training.init_from: .*"):
        run(tmp_path, init_from("s3://begun-weights/nothing"), ONE, name="none")


@pytest.mark.slow
def test_the_driver_settles_what_an_alias_means_and_the_run_stays_with_it(tmp_path: Path) -> None:
    from mlflow.tracking.client import MlflowClient

    registry = ["tracking=local", "registry={model: begun, alias: champion}", ONE]
    for name in ("one", "two"):
        fit(planned(tmp_path, *registry, run=name), lambda event: None, resume=False)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.set_registered_model_alias("begun", "champion", "1")

    events: list[Event] = []
    options = ["tracking=local", "training.init_from=models:/begun@champion"]
    part = planned(tmp_path, *options, ONE, run="tuned")
    fit(part, events.append, resume=False)
    assert said(events)[0].startswith("weights of models:/begun/1 (run one, step 1): loaded 6 of 6")
    kinds = [type(event) for event in events]
    assert kinds.index(Initialised) < kinds.index(Started)
    origin = read_origins(part.paths.folder)["models:/begun@champion"]
    assert origin.name == "models:/begun/1"
    (found,) = client.search_runs(["1"], "attributes.run_name = 'tuned'")
    assert found.data.tags["init_from"] == "models:/begun/1"

    # The alias moves, and the checkpoints are lost: the run begins again with what it began with.
    client.set_registered_model_alias("begun", "champion", "2")
    shutil.rmtree(part.paths.checkpoints)
    events.clear()
    fit(part, events.append, resume=True)
    assert said(events)[0].startswith("weights of models:/begun/1 ")
    # With a checkpoint, MLflow is not asked at all.
    (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
    more = planned(tmp_path, "tracking=off", *options[1:], "training.epochs=1", run="tuned")
    events.clear()
    fit(more, events.append, resume=True)
    assert not said(events)

    with pytest.raises(ConfigError, match=r"training.init_from: there is no MLflow store"):
        fit(planned(tmp_path, *options, run="none"), events.append, resume=False)


@pytest.mark.slow
def test_workers_elsewhere_get_a_copy_in_the_storage(tmp_path: Path) -> None:
    registry = ["tracking=local", "registry={model: begun}", ONE]
    fit(planned(tmp_path / "a", *registry, run="one"), lambda event: None, resume=False)
    uri = f"tracking={{kind: mlflow, uri: 'sqlite:///{tmp_path}/a/mlflow.db'}}"
    config = load(
        BEGUN,
        [
            f"experiment.storage={tmp_path}/b",
            uri,
            "target={kind: local, address: '10.0.0.1:6379'}",
            "resources={workers: 2}",
        ],
    )
    plan = plan_training(config, "tuned")
    origins = settled(plan, plan.paths.folder, ["models:/begun/1"])
    assert origins["models:/begun/1"].place == f"{plan.paths.folder}/init_from"
    shutil.rmtree(tmp_path / "a")  # no worker sees it
    events = run(tmp_path / "b", "training.init_from=models:/begun/1", ONE, name="tuned")
    assert said(events)[0].startswith("weights of models:/begun/1 (run one, step 1): loaded 6 of 6 tensors")


def test_a_folder_that_is_not_there_is_told_by_the_driver(tmp_path: Path, monkeypatch: Any) -> None:
    plan = planned(tmp_path, "training.init_from=nowhere/at/all")
    monkeypatch.chdir(tmp_path)
    message = rf"training.init_from: there is no such folder \(got {tmp_path}/nowhere/at/all\)"
    with pytest.raises(ConfigError, match=message):
        fit(plan, lambda event: None, resume=False)
