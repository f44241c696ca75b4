"""What a user is told for each mistake: the place, the key, the value got, the rule and the remedy, once per
mistake.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from raystack.config import load
from raystack.errors import ConfigError

GOOD = """\
experiment: {name: demo}
task: {entry: "task:Demo"}
training:
  steps: 10
  batch: {global: 8}
"""


@dataclass(frozen=True)
class Bad:
    """A config that is refused: GOOD with `add` from its line 6 on, or `whole` instead of it."""

    name: str
    says: str | list[str]
    add: str = ""
    whole: str | None = None
    overrides: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


REFERENCE = "should be a reference, secret:env:NAME or secret:file:/path, and not the secret itself"
RESOURCES = "choices: cpu1, cpu2, gpu1, gpu16, gpu8, inline, processes, processes2"
NUMBER_REMEDY = "drop the quotes; a number from the environment is written ${oc.decode:${oc.env:NAME}}"

CASES = [
    Bad(
        "typo at the root",
        "config.yaml:6: trackin: unknown key (got a mapping); did you mean 'tracking'?",
        add="trackin: {kind: mlflow}",
    ),
    Bad(
        "typo in a section",
        "config.yaml:6: training.epoch: unknown key (got 1); did you mean 'epochs'?",
        add="  epoch: 1",
    ),
    Bad(
        "typo in a branch of a union",
        "config.yaml:6: training.optimizer.momentun: unknown key (got 0.9); did you mean 'momentum'?",
        add="  optimizer: {kind: sgd, momentun: 0.9}",
    ),
    Bad(
        "key of another branch",
        "config.yaml:6: training.optimizer.betas: unknown key (got [0.9, 0.9]); it belongs to kind adamw or"
        " adam or muon",
        add="  optimizer: {kind: sgd, betas: [0.9, 0.9]}",
    ),
    Bad(
        "a group's name as a key",
        "config.yaml:6: strategy: unknown key (got 'ddp'); choose from the group in the defaults list:"
        " `defaults: [strategy: ..., _self_]`",
        add="strategy: ddp",
    ),
    Bad(
        "text for a number",
        f"config.yaml:6: training.log_every_steps: should be a whole number (got '10'); {NUMBER_REMEDY}",
        add='  log_every_steps: "10"',
    ),
    Bad(
        "true for a number",
        "config.yaml:6: training.log_every_steps: should be a whole number (got true)",
        add="  log_every_steps: true",
    ),
    Bad(
        "null for a number",
        "config.yaml:6: training.log_every_steps: should be a whole number (got null)",
        add="  log_every_steps: null",
    ),
    Bad(
        "number for text",
        "config.yaml:1: experiment.tags.year: should be text (got 2024); put it in quotes",
        whole=GOOD.replace("demo", "demo, tags: {year: 2024}"),
    ),
    Bad(
        "list for a mapping",
        'config.yaml:6: training.schedule: should be a mapping of keys to values (got ["cosine"])',
        add="  schedule: [cosine]",
    ),
    Bad(
        "mapping for a scalar",
        "config.yaml:6: training.precision: should be 'fp32', 'bf16' or 'fp16' (got a mapping)",
        add="  precision: {kind: bf16}",
    ),
    Bad(
        "null for a section",
        "config.yaml:6: resources: should be a mapping of keys to values (got null); "
        "choose from the group in the defaults list: cpu1, cpu2, gpu1, gpu16, gpu8, inline, processes,"
        " processes2",
        add="resources: null",
    ),
    Bad(
        "neither a word nor a number",
        "config.yaml:6: resources.workers: should be 'inline' or 'gpus' or a whole number or a list (got"
        " 'outline')",
        add="resources: {workers: outline}",
    ),
    Bad(
        "off without quotes",
        "config.yaml:6: tracking.kind: should be 'mlflow' or 'off' (got false); YAML reads off as false:"
        ' write "off" with its quotes',
        add="tracking: {kind: off}",
    ),
    Bad(
        "unknown kind",
        "config.yaml:6: training.optimizer.kind: should be adamw or sgd or adam or rmsprop or adagrad or"
        " adafactor or muon or task (got 'adamv'); did you mean 'adam'?",
        add="  optimizer: {kind: adamv}",
    ),
    Bad(
        "no kind",
        "config.yaml:1: target.storage.volumes.0.kind: is required; add target.storage.volumes.0.kind: pvc or"
        " nfs or gcsfuse or secret or configmap or emptydir or hostpath or csi or ephemeral",
        whole="target: {kind: kuberay, image: x, storage: {volumes: [{name: runs, mount: /runs}]}}\n" + GOOD,
    ),
    Bad(
        "unknown word",
        "config.yaml:6: training.precision: should be fp32 or bf16 or fp16 (got 'fp116'); did you mean"
        " 'fp16'?",
        add="  precision: fp116",
    ),
    Bad(
        "a precision of another strategy",
        "config.yaml:6: training: fp16 needs strategy zero (got precision 'fp16'); use bf16, or"
        " strategy=zero1",
        add="  precision: fp16",
    ),
    Bad(
        "elastic the wrong way round",
        "override 'resources.workers=[4,2]': resources: should be [min, max] with min at most max (got"
        " workers [4, 2])",
        overrides=("resources.workers=[4,2]",),
    ),
    Bad(
        "an option of another stage",
        "config.yaml:6: training.strategy: offload_param needs stage 3 (got stage 2)",
        add="  strategy: {kind: zero, stage: 2, offload_param: {device: cpu}}",
    ),
    Bad(
        "negative rate",
        "config.yaml:6: training.optimizer.lr: should be greater than 0 (got -1)",
        add="  optimizer: {kind: adamw, lr: -1}",
    ),
    Bad(
        "not a number",
        "config.yaml:6: training.optimizer.lr: should be a finite number (got NaN)",
        add="  optimizer: {kind: adamw, lr: .nan}",
    ),
    Bad(
        "too few",
        "config.yaml:6: training.optimizer.betas: should have 2 entries (got [0.9])",
        add="  optimizer: {kind: adamw, betas: [0.9]}",
    ),
    Bad(
        "name too long",
        "config.yaml:1: experiment.name: should be 1 to 40 lower case letters, digits and dashes, with no"
        f" dash at either end (got '{'a' * 41}')",
        whole=GOOD.replace("demo", "a" * 41),
    ),
    Bad(
        "epochs and steps",
        "override 'training.epochs=3': training: takes epochs or steps, not both (got epochs 3, steps 10);"
        " drop one, or set it to null",
        overrides=("training.epochs=3",),
    ),
    Bad(
        "neither epochs nor steps",
        "config.yaml:3: training: the length of the training is required; add training.epochs or"
        " training.steps",
        overrides=("~training.steps",),
    ),
    Bad(
        "alias without model",
        "config.yaml:6: registry: an alias needs a model that it is set on (got alias 'champion'); add"
        " registry.model",
        add="registry: {alias: champion}",
    ),
    Bad(
        "password in an address",
        "config.yaml:6: tracking.uri: should not hold a password, because the config is written beside"
        " every run",
        add="tracking: {uri: 'http://me:hunter2@host'}",
    ),
    Bad(
        "secret in the clear",
        f"config.yaml:6: tracking.password: {REFERENCE}",
        add="tracking: {username: me, password: hunter2}",
    ),
    Bad(
        "secret in an override",
        f"override 'tracking.token=...': tracking.token: {REFERENCE}",
        overrides=("tracking.token=hunter2",),
    ),
    Bad(
        "secret that does not parse",
        "override 'tracking.token=...': the value cannot be read; give a reference:"
        " tracking.token=secret:env:NAME",
        overrides=("tracking.token=hunter2{",),
    ),
    Bad(
        "secret under a typo",
        "override 'tracking.pasword=...': tracking.pasword: unknown key; did you mean 'password'?",
        overrides=("tracking.pasword=hunter2",),
    ),
    Bad(
        "secret in a mapping",
        f"config.yaml:6: tracking.password: {REFERENCE}",
        add="tracking: {username: me, password: {is: hunter2}}",
    ),
    Bad(
        "required section missing",
        [
            "config.yaml: experiment.name: is required; add experiment.name",
            "config.yaml: task: is required; add task",
        ],
        whole="training: {steps: 1, batch: {global: 8}}",
    ),
    Bad(
        "required key missing",
        "config.yaml:3: training.batch: is required; add training.batch",
        whole=GOOD.replace("  batch: {global: 8}\n", ""),
    ),
    Bad(
        "required section deleted",
        "override '~training': training: is required; drop the override",
        overrides=("~training",),
    ),
    Bad(
        "unknown choice",
        "config.yaml:1: defaults: the group 'resources' has no choice 'cpu3'; did you mean 'cpu2'?"
        f" {RESOURCES}",
        whole="defaults: [resources: cpu3, _self_]\n" + GOOD,
    ),
    Bad(
        "unknown group",
        "config.yaml:2: defaults: there is no config group 'resource'; did you mean 'resources'?",
        whole="defaults:\n- resource: cpu2\n- _self_\n" + GOOD,
    ),
    Bad(
        "unknown config",
        "config.yaml:1: defaults: there is no 'common.yaml' beside the config or among raystack's groups",
        whole="defaults: [common, _self_]\n" + GOOD,
    ),
    Bad(
        "a group twice",
        "config.yaml:1: defaults: 'resources' is chosen for a second time; "
        "drop one of them, or write `override /resources: ...` for the one that counts",
        whole="defaults: [resources: cpu1, resources: cpu2, _self_]\n" + GOOD,
    ),
    Bad(
        "defaults is no list",
        "config.yaml:1: defaults: should be a list of choices; write `defaults: [resources: cpu2, _self_]`",
        whole="defaults: {resources: cpu2}\n" + GOOD,
    ),
    Bad(
        "Hydra's settings",
        "config.yaml:6: hydra: Hydra's own settings have no effect here; remove them",
        add="hydra: {run: {dir: x}}",
    ),
    Bad(
        "not YAML",
        "config.yaml:7: this is not YAML: the file ends inside a bracket or quote; close it",
        add="tracking: {kind: mlflow",
    ),
    Bad(
        "a colon too many",
        "config.yaml:6: this is not YAML: a ': ' is out of place; check the indentation, or quote a value"
        " that holds ': '",
        add="tracking: kind: mlflow",
    ),
    Bad(
        "a tab",
        "config.yaml:7: YAML is indented with spaces, and here is a tab; replace the tab with spaces",
        add="tracking:\n\tkind: mlflow",
    ),
    Bad(
        "a key twice",
        "config.yaml:6: training.steps: the key is given twice, first on line 4; drop one of them",
        add="  steps: 20",
    ),
    Bad(
        "a tag",
        "config.yaml:6: tracking: YAML tags such as !!python have no meaning here; remove the tag",
        add="tracking: !!python/object:os.system {}",
    ),
    Bad(
        "an alias in itself",
        "config.yaml:6: tracking.uri: the alias lies inside of what it stands for; write the value out",
        add="tracking: &all {uri: *all}",
    ),
    Bad("an empty file", "config.yaml: the file is empty; start with `experiment: {name: ...}`", whole=""),
    Bad(
        "a list",
        "config.yaml:1: a config is a mapping of sections (got a list); start with `experiment: {name: ...}`",
        whole="- experiment\n",
    ),
    Bad(
        "to be given",
        "config.yaml:6: training.clip_norm: is marked ??? and has to be given; add training.clip_norm=...",
        add="  clip_norm: ???",
    ),
    Bad(
        "interpolation of nothing",
        "config.yaml:6: serving.name: refers to 'experiment.nam', which the config does not set (got"
        " ${experiment.nam}); did you mean '${experiment.name}'?",
        add="serving: {name: '${experiment.nam}'}",
    ),
    Bad(
        "missing variable, told once",
        "config.yaml:6: serving.name: the environment variable NOT_SET is not set (got ${oc.env:NOT_SET}); "
        "set it, or give a default: ${oc.env:NOT_SET,value}",
        add="serving: {name: '${oc.env:NOT_SET}', host: '${.name}'}",
    ),
    Bad(
        "circle",
        "config.yaml:6: serving.name: refers back to itself (got ${.host}); give one of the keys in the"
        " circle a value",
        add="serving: {name: '${.host}', host: '${.name}'}",
    ),
    Bad(
        "circle through sections",
        "config.yaml:6: serving.batching: refers back to itself (got ${serving}); give one of the keys in the"
        " circle a value",
        add="serving: {batching: '${serving}'}",
    ),
    Bad(
        "interpolation not closed",
        "config.yaml:6: serving.name: the interpolation cannot be read (got ${experiment.name); "
        "write ${section.key} or ${oc.env:NAME}; a plain '${' is written \\${",
        add="serving: {name: '${experiment.name'}",
    ),
    Bad(
        "interpolated value of the wrong type",
        "config.yaml:6: serving.port: should be a whole number (got 'demo')",
        add="serving: {port: '${experiment.name}'}",
    ),
    Bad(
        "override without a value",
        "override 'epochs': an override is key=value; write epochs=..., or ~key to delete a key",
        overrides=("epochs",),
    ),
    Bad(
        "override that does not parse",
        "override 'experiment.name=é': the value cannot be read (got é); quote it: experiment.name='é', and"
        " once more for the shell",
        overrides=("experiment.name=é",),
    ),
    Bad(
        "sweep",
        "override 'training.steps=1,2': gives several values where one is expected; give one value,"
        " or search over them with `raystack tune`",
        overrides=("training.steps=1,2",),
    ),
    Bad(
        "typo of a group in an override",
        "override 'strateg=ddp': strateg: unknown key (got 'ddp'); did you mean 'strategy'?",
        overrides=("strateg=ddp",),
    ),
    Bad(
        "unknown choice in an override",
        "override 'strategy=dpp': the group 'strategy' has no choice 'dpp'; did you mean 'ddp'? choices: ddp,"
        " fsdp, zero1, zero2, zero3",
        overrides=("strategy=dpp",),
    ),
    Bad(
        "wrong value in an override",
        "override 'serving={port: 90000}': serving.port: should be less than or equal to 65535 (got 90000)",
        overrides=("serving={port: 90000}",),
    ),
    Bad(
        "adding what is there",
        "override '+training.steps=3': 'training.steps' is there already (got 10); drop the +",
        overrides=("+training.steps=3",),
    ),
    Bad(
        "deleting what is not there",
        "override '~training.epochs': there is no 'training.epochs' to delete",
        overrides=("~training.epochs",),
    ),
    Bad(
        "key below a value",
        "override 'training.steps.x=3': 'training.steps' is a plain value and holds no other keys (got 10)",
        overrides=("training.steps.x=3",),
    ),
    Bad(
        "in one's own group",
        "resources/mine.yaml:2: resources.workers: should be 'inline' or 'gpus' or a whole number or a list"
        " (got 'two')",
        overrides=("resources=mine",),
        files={"resources/mine.yaml": "# Mine.\nworkers: two\n"},
    ),
    Bad(
        "in a group that is listed by a group",
        "trial/one.yaml:7: training.batch.micr: unknown key (got 3); did you mean 'micro'?",
        whole="defaults: [trial: one]\n",
        files={
            "trial/one.yaml": (
                "# @package _global_\ndefaults: [/resources: cpu2]\n" + GOOD.replace("global: 8", "micr: 3")
            )
        },
    ),
    Bad(
        "a group that lists itself",
        "resources/mine.yaml:1: defaults: 'resources/mine' leads back to this file; drop the entry",
        overrides=("resources=mine",),
        files={"resources/mine.yaml": "defaults: [mine]\n"},
    ),
    Bad(
        "several mistakes, all told",
        [
            (
                "config.yaml:5: serving.name: the environment variable NOT_SET is not set (got"
                " ${oc.env:NOT_SET}); set it, or give a default: ${oc.env:NOT_SET,value}"
            ),
            "config.yaml:1: experiment.seed: should be greater than or equal to 0 (got -1)",
            "config.yaml:2: task.entry: should be module:name, e.g. task:Digits (got 'task.Demo')",
            "config.yaml:3: training.batch.globl: unknown key (got 3); did you mean 'global'?",
            "config.yaml:4: server: unknown key (got a mapping); did you mean 'serving'?",
        ],
        whole=(
            "experiment: {name: demo, seed: -1}\ntask: {entry: task.Demo}\ntraining: {epochs: 1, batch:"
            " {globl: 3}}\nserver: {}\nserving: {name: '${oc.env:NOT_SET}'}\n"
        ),
    ),
]


@pytest.mark.parametrize("bad", CASES, ids=[bad.name for bad in CASES])
def test_a_mistake_is_told_once_and_plainly(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    for name, text in bad.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "config.yaml").write_text(
        GOOD + bad.add + "\n" if bad.whole is None else bad.whole, encoding="utf-8"
    )
    with pytest.raises(ConfigError) as refused:
        load("config.yaml", bad.overrides)
    assert [str(problem) for problem in refused.value.problems] == (
        [bad.says] if isinstance(bad.says, str) else bad.says
    )
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("confg.yaml", "confg.yaml: there is no such config file; did you mean config.yaml?"),
        ("runs", "runs: this is a folder; did you mean runs/config.yaml?"),
        ("old.yml", "old.yml: the name of a config file ends in .yaml; rename it to old.yaml"),
    ],
)
def test_a_file_that_is_not_there(
    config: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("config.yaml", "runs/config.yaml", "old.yml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(ConfigError) as refused:
        load(config)
    assert str(refused.value) == says


def test_a_group_of_raystacks_own_is_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "config.yaml").write_text(GOOD)
    with pytest.raises(
        ConfigError,
        match=r"configs/tracking/server\.yaml:3: tracking\.uri: the environment variable MLFLOW_TRACKING_URI"
        r" is not set \(got .*\); set it, or give tracking\.uri=\.\.\.$",
    ):
        load(tmp_path / "config.yaml", ["tracking=server"])


def test_a_file_elsewhere_is_named_by_its_whole_path(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD + "seed: 3\n")
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert refused.value.problems[0].where == f"{file}:6: seed"
