# ruff: noqa: E501 (tables)
"""What YAML, Hydra and MLflow would take for something else, or stumble over: each is one line that names the
place to edit, and what it advises works.
"""

import cProfile
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from raystack.config import dump, from_mapping, load
from raystack.config.optimizer import SGD, AdamW
from raystack.config.strategy import Zero
from raystack.config.target import Local
from raystack.errors import ConfigError

GOOD = """\
experiment: {name: demo}
task: {entry: "task:Demo"}
training:
  steps: 10
  batch: {global: 8}
"""
KUBE = "defaults: [target: kuberay, _self_]\n"


@dataclass(frozen=True)
class Trap:
    """A config that is refused: GOOD after `before`, with `swap` made in it and `add` from its line 6 on."""

    name: str
    says: str
    before: str = ""
    swap: tuple[str, str] = ("", "")
    add: str = ""
    kube: bool = False
    overrides: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


TRAPS = [
    Trap("a key that is null", 'config.yaml:6: registry: a key is text (got null); put it in quotes: "~"', add="registry: {~: x}"),
    Trap("a key that YAML reads as true", 'config.yaml:1: experiment.tags: a key is text (got yes, which YAML reads as true); put it in quotes: "yes"', swap=("demo","demo, tags: {yes: a}")),
    Trap("a key that YAML reads as a number", 'config.yaml:1: experiment.tags: a key is text (got 1); put it in quotes: "0x1"', swap=("demo","demo, tags: {0x1: a}")),
    Trap("a key in an override that is a number", "override 'experiment.tags={2024: a}': a key is text (got 2024); write experiment.tags.2024=...", overrides=("experiment.tags={2024: a}",)),
    Trap("a key in an override that is null", "override 'experiment.tags={null: a}': a key is text (got null); write experiment.tags.null=...", overrides=("experiment.tags={null: a}",)),
    Trap("a key that is a list", "config.yaml:6: registry: a key is text (got a list); check the brackets and the ? in this line", add="registry: {[model]: x}"),
    Trap("a set", "config.yaml:1: experiment.tags: YAML tags such as !!python have no meaning here; remove the tag", swap=("demo","demo, tags: !!set {a, b}")),
    Trap("an octal number", 'config.yaml:6: training.log_every_steps: begins with 0, and YAML reads it as 8 (got 010); write 10 for a number, "010" for text', add="  log_every_steps: 010"),
    Trap("a number with a leading zero", 'config.yaml:6: training.log_every_steps: begins with 0, and YAML reads it as text (got 08); write 8 for a number, "08" for text', add="  log_every_steps: 08"),
    Trap("a number with a leading zero in an override", "override 'training.log_every_steps=08': training.log_every_steps: should be a whole number (got '08'); write 8, without the 0 in front", overrides=("training.log_every_steps=08",)),
    Trap("a number with a colon", 'config.yaml:6: training.log_every_steps: YAML reads it as 90 (got 1:30); write 90, or "1:30" for text', add="  log_every_steps: 1:30"),
    Trap("a whole number with an exponent", "config.yaml:6: training.log_every_steps: should be a whole number (got 1000.0); write 1000", add="  log_every_steps: 1e3"),
    Trap("a number of 5000 digits", 'config.yaml:6: training.log_every_steps: a number has at most 100 digits (got ' + '9' * 77 + '...); put it in quotes if it is text', add="  log_every_steps: " + "9"*5000),
    Trap("a number of 5000 digits in an override", "override 'experiment.seed=" + '9' * 181 + "...': a number has at most 100 digits", overrides=("experiment.seed=" + "9"*5000,)),
    Trap("a number that is too large", "config.yaml:2: task.args.x: the number is too large (got 1e999); put it in quotes if it is text", swap=('"task:Demo"','"task:Demo", args: {x: 1e999}')),
    Trap("a boolean that is none", "config.yaml:6: training.compile: should be true or false (got maybe); remove the tag", add="  compile: !!bool maybe"),
    Trap("a null that is none", "config.yaml:6: training.clip_norm: should be null (got 3); remove the tag", add="  clip_norm: !!null 3"),
    Trap("an equals sign", 'config.yaml:1: experiment.tags.op: = alone has a meaning of its own in YAML; put it in quotes: "="', swap=("demo","demo, tags: {op: =}")),
    Trap("a choice that YAML reads as false", 'config.yaml:1: defaults: a choice is text, and YAML reads this as another value (got off); put it in quotes: "off"', before="defaults: [tracking: off, _self_]\n"),
    Trap("a group with a space", "config.yaml:1: defaults: should be the name of a config group (got 'resources '); check its spaces and slashes", before="defaults: ['resources ': cpu2, _self_]\n"),
    Trap("an override of nothing", "config.yaml:1: defaults: no defaults list has 'resources', which could be overridden; drop the word `override`", before="defaults: [_self_, override resources: cpu1]\n"),
    Trap("an override before others", "config.yaml:1: defaults: an `override` stands before an entry of another kind; move it to the end of the list", before="defaults: [resources: cpu1, override resources: cpu2, strategy: ddp, _self_]\n"),
    Trap("deeply nested", "config.yaml:6: lists and mappings are more than 30 deep inside each other", add="registry: " + "{a: "*70 + "}"*70),
    Trap("deeply nested lists", "config.yaml:6: lists and mappings are more than 30 deep inside each other", add="registry: " + "["*2000 + "]"*2000),
    Trap("deeply nested in an override", "override 'task.args.x=" + '[' * 70 + ']' * 70 + "': lists and mappings are more than 30 deep inside each other", overrides=("task.args.x=" + "["*70 + "]"*70,)),
    Trap("a name of 5000 characters", "override 'resources=" + 'n' * 187 + "...': the group 'resources' has no choice '" + 'n' * 77 + "...'; choices: cpu1, cpu2, gpu1, gpu16, gpu8, inline, processes, processes2", overrides=("resources=" + "n"*5000,)),
    Trap("a key of 5000 characters", "override 'training." + 'n' * 188 + "...': training." + 'n' * 77 + '...: unknown key (got 1); known here: epochs, steps, batch, init_from, optimizer, schedule, precision, clip_norm, clip_value, freeze, gradient_checkpointing, ema, evaluate, checkpoint, early_stopping, max_time_s, data, strategy, compile, faults, watchdog, deterministic, log_every_steps', overrides=("training." + "n"*5000 + "=1",)),
    Trap("a word in a list of sections", "config.yaml:7: target.lifetime.rules.0.policy: should be DeleteWorkers or DeleteCluster or DeleteSelf or DeleteNone (got 'DeleteCluste'); did you mean 'DeleteCluster'?", kube=True, add="target: {image: x, lifetime: {rules: [{policy: DeleteCluste, after: SUCCEEDED}]}}"),
    Trap("a key in a list of sections", "config.yaml:7: target.worker.tolerations.0.keys: unknown key (got 'gpu'); did you mean 'key'?", kube=True, add="target: {image: x, worker: {tolerations: [{keys: gpu}]}}"),
    Trap("a choice that YAML reads as false", 'config.yaml:1: defaults: a choice is text, and YAML reads this as another value (got off); put it in quotes: "off"', before="defaults: [tracking: off, _self_]\n"),
    Trap("another word for a choice that YAML reads as false", 'config.yaml:1: defaults: a choice is text, and YAML reads this as another value (got no); write "off", with the quotes', before="defaults: [tracking: no, _self_]\n"),
    Trap("a word that is no choice and no text", "config.yaml:1: defaults: a choice is text, and YAML reads this as another value (got on); choices: local, off, server", before="defaults: [tracking: on, _self_]\n"),
    Trap("a section that is off", 'config.yaml:6: tracking: should be a mapping of keys to values (got false); choose it in the defaults list: `defaults: [tracking: "off", _self_]`', add="tracking: off"),
    Trap("a section that is a choice", "config.yaml:6: target: should be a mapping of keys to values (got 'local'); choose it in the defaults list: `defaults: [target: local, _self_]`", add="target: local"),
    Trap("a section that is null", "config.yaml:6: tracking: should be a mapping of keys to values (got null); choose from the group in the defaults list: local, off, server", add="tracking: null"),
    Trap("a section without choices that is off", "config.yaml:6: registry: should be a mapping of keys to values (got false); leave it out", add="registry: off"),
    Trap("a tag that MLflow has for a run's name", "config.yaml:1: experiment.tags.mlflow.runName: should not be 'mlflow.runName' or begin with 'raystack.': raystack sets those itself (got 'mlflow.runName')", swap=("demo","demo, tags: {mlflow.runName: x}")),
    Trap("an empty host", "config.yaml:6: serving.host: should be a host name or an address, e.g. 127.0.0.1, or 0.0.0.0 for every interface (got '')", add="serving: {host: ''}"),
    Trap("a host that means every interface", "config.yaml:6: serving.host: should be a host name or an address, e.g. 127.0.0.1, or 0.0.0.0 for every interface (got '0')", add="serving: {host: '0'}"),
    Trap("an empty name of a variable", "config.yaml:7: target.env.'': should be the name of a variable: letters, digits, '_', '-' and '.' (got '')", kube=True, add="target: {image: x, env: {'': x}}"),
    Trap("an empty image", "config.yaml:7: target.image: should not be empty (got '')", kube=True, add="target: {image: ''}"),
    Trap("a model named like a folder", "config.yaml:6: registry.model: should not look like a path: no '.', '..' or empty part between slashes (got '..')", add="registry: {model: ..}"),
    Trap("a model with a long name", "config.yaml:6: registry.model: should be a name of at most 256 characters without '/', ':' and '@' (got '" + 'm' * 76 + '...)', add="registry: {model: " + "m"*257 + "}"),
    Trap("a long alias", "config.yaml:6: registry.alias: should start with a letter and go on with letters, digits, '_' and '-', 255 characters at most (got '" + 'a' * 76 + '...)', add="registry: {model: m, alias: " + "a"*256 + "}"),
    Trap("an alias that MLflow keeps", "config.yaml:6: registry.alias: should not be 'latest' or look like a version, e.g. 'v3': MLflow keeps those for itself (got 'Latest')", add="registry: {model: m, alias: Latest}"),
    Trap("a tag that MLflow refuses", "config.yaml:1: experiment.tags.a@b: should be letters, digits, spaces and '_-.:/', 250 characters at most (got 'a@b')", swap=("demo","demo, tags: {a@b: x}")),
    Trap("a metric that MLflow refuses", "config.yaml:6: training.checkpoint.keep_best.metric: should be letters, digits, spaces and '_-.:/', 250 characters at most (got 'eval/top@5')", add="  checkpoint: {keep_best: {metric: 'eval/top@5', mode: max}}"),
    Trap("a version that cannot be", "config.yaml:6: serving.model: should not look like a path: no '.', '..' or empty part between slashes (got 'models:/../3')", add="serving: {model: 'models:/../3'}"),
    Trap("a function over values", "override 'training.steps=range(1,5)': gives several values where one is expected; give one value, or search over them with `raystack tune`", overrides=("training.steps=range(1,5)",)),
    Trap("a sweep inside of a list", "override 'training.steps=[range(1,5)]': gives several values where one is expected; give one value", overrides=("training.steps=[range(1,5)]",)),
    Trap("a sweep over text", "override 'experiment.tags.x=1,2': gives several values where one is expected; quote text that holds commas: experiment.tags.x='1,2', or search over them with `raystack tune`", overrides=("experiment.tags.x=1,2",)),
    Trap("a sweep over a list", "override 'training.optimizer.betas=0.9,0.99': gives several values where one is expected; write a list: training.optimizer.betas=[0.9,0.99], or search over them with `raystack tune`", overrides=("training.optimizer.betas=0.9,0.99",)),
    Trap("a letter that no override has in its key", "override 'experiment.tags.é=1': the part before '=' should be a dotted key, e.g. training.epochs (got 'experiment.tags.é'); it is made of a-z, A-Z, 0-9, '_' and '-'; set it in the file where it has other characters", overrides=("experiment.tags.é=1",)),
    Trap("an entry of a list deleted", "override '~task.args.l.1': an entry of a list cannot be deleted; write what is left of it: task.args.l=[1,3]", swap=('"task:Demo"','"task:Demo", args: {l: [1, 2, 3]}'), overrides=("~task.args.l.1",)),
    Trap("an entry past the end of a list", "override 'task.args.l.7=1': 'task.args.l' is a list with entries from 0 to 2 (got 7); write the whole list: task.args.l=[...]", swap=('"task:Demo"','"task:Demo", args: {l: [1, 2, 3]}'), overrides=("task.args.l.7=1",)),
    Trap("another choice deleted", "override '~resources=cpu1': deletes 'resources' only where it is cpu1 (got cpu2); write ~resources", before="defaults: [resources: cpu2, _self_]\n", overrides=("~resources=cpu1",)),
    Trap("a package without a name", "extra/x.yaml:1: # @package: takes the dotted key that the file belongs under; write `# @package _global_`, or e.g. `# @package training.optimizer`", overrides=("+extra=x",), files={"extra/x.yaml": "# @package\na: 1\n"}),
    Trap("a package with two", "extra/x.yaml:1: # @package: takes the dotted key that the file belongs under (got serving extra); write `# @package _global_`, or e.g. `# @package training.optimizer`", overrides=("+extra=x",), files={"extra/x.yaml": "# @package serving extra\na: 1\n"}),
    Trap("a group that belongs nowhere", "override '+extra=x': extra: unknown key (got a mapping); give the group's file a `# @package` with the key that it belongs under", overrides=("+extra=x",), files={"extra/x.yaml": "a: 1\n"}),
    Trap("Hydra's settings in a group", "resources/mine.yaml:2: hydra: Hydra's own settings have no effect here; remove them", overrides=("resources=mine",), files={"resources/mine.yaml": "# @package _global_\nhydra: {run: {dir: x}}\n"}),
    Trap("Hydra's groups in a list", "config.yaml:1: defaults: Hydra's own settings have no effect here; remove them", before="defaults: [override hydra/launcher: basic, _self_]\n"),
    Trap("aliases of aliases", "config.yaml: aliases stand for 54,481,013 values, and for 50,000 at most; use fewer aliases", add="x0: &x0 [1,1,1,1,1,1,1,1,1]\n" + "".join(f"x{n}: &x{n} [{','.join([f'*x{n-1}']*9)}]\n" for n in range(1,8))),
    Trap("interpolations of interpolations", "config.yaml:11: x5: interpolations stand for more than 50,000 values from here on; use fewer", add="".join(f"x{n}: '{f'${{x{n-1}}}'*9 if n else 1}'\n" for n in range(8))),
    Trap("a key of another kind", "config.yaml:6: training.optimizer.momentum: unknown key (got 0.9); it belongs to kind sgd or rmsprop or muon", add="  optimizer: {momentum: 0.9}"),
    Trap("a byte-order mark before a package", "extra/x.yaml:1: # @package: is not seen behind a byte-order mark (got _global_); save the file as UTF-8 without one", overrides=("+extra=x",), files={"extra/x.yaml": "\ufeff# @package _global_\nseed: 1\n"}),
    Trap("a host in hexadecimal", "config.yaml:6: serving.host: should be a host name or an address, e.g. 127.0.0.1, or 0.0.0.0 for every interface (got '0x0')", add="serving: {host: '0x0'}"),
    Trap("an empty folder", "config.yaml:5: task.folder: should not be empty (got '')", swap=('task: {entry: "task:Demo"}\n', ""), add='task: {entry: "task:Demo", folder: ""}'),
    Trap("a list for a section", "override 'training=[1]': 'training' is a mapping of keys to values (got a list)", overrides=("training=[1]",)),
    Trap("a mapping for a list", "override 'task.args.l={a: 1}': 'task.args.l' is a list (got a mapping)", swap=('"task:Demo"', '"task:Demo", args: {l: [1, 2, 3]}'), overrides=("task.args.l={a: 1}",)),
    Trap("a key in quotes in an override", "override 'resources.custom={'':1}': the value cannot be read (got {'':1}); set it in the file", overrides=("resources.custom={'':1}",)),
    Trap("bytes that are no text in an override", "override 'serving.name=\\udcff': the override is not UTF-8 text", overrides=("serving.name=\udcff",)),
    Trap("a control character", "config.yaml:6: a control character has no place in YAML; remove it", add="serving: {name: a\x07}"),
    Trap("a package below a comment", "extra/x.yaml:2: # @package: is read at the top of the file only; move it to the first line", overrides=("+extra=x",), files={"extra/x.yaml": "# Mine.\n# @package task.args\na: 1\n"}),
    Trap("a group's file that is a list", "extra/x.yaml:1: a config is a mapping of sections (got a list); write `key: value`", overrides=("+extra=x",), files={"extra/x.yaml": "- a\n"}),
    Trap("a variable with too many digits", "config.yaml:6, from the environment variable PORT: serving.port: a number has at most 100 digits (got ${oc.decode:${oc.env:PORT}})", add="serving: {port: '${oc.decode:${oc.env:PORT}}'}", env={"PORT": "9" * 5000}),
    Trap("half a character", "config.yaml:6: registry.model: half of a surrogate pair is no text; write the character itself", add='registry: {model: "\\ud800"}'),
    Trap("a variable of raystack's own", "environment variable RAYSTACK_STORAGE: experiment.storage: should name a bucket or host after :// (got 's3://')", env={"RAYSTACK_STORAGE": "s3://"}),
    Trap("a variable of the user's", "config.yaml:6, from the environment variable PORT: serving.port: should be a whole number (got 'http')", add="serving: {port: '${oc.env:PORT}'}", env={"PORT": "http"}),
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes config.yaml, and the files of groups beside it, into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSTACK_IMAGE", "demo:1")

    def write(text: str, **files: str) -> Path:
        for name, content in {"config.yaml": text, **files}.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content, encoding="utf-8")
        return Path("config.yaml")

    return write


@pytest.mark.parametrize("trap", TRAPS, ids=[trap.name for trap in TRAPS])
def test_a_trap_is_one_line_that_names_its_place(
    trap: Trap, here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in trap.env.items():
        monkeypatch.setenv(name, value)
    good = GOOD.replace(*trap.swap) if trap.swap[0] else GOOD
    file = here((KUBE if trap.kube else trap.before) + good + trap.add + "\n", **trap.files)
    with pytest.raises(ConfigError) as refused:
        load(file, trap.overrides)
    assert str(refused.value) == trap.says


ADVICE = [
    ("experiment: {name: demo, tags: {NO: a}}", 'experiment: {name: demo, tags: {"NO": a}}', 'put it in quotes: "NO"'),
    ("experiment: {name: demo, tags: {null: a}}", 'experiment: {name: demo, tags: {"null": a}}', 'put it in quotes: "null"'),
    ("experiment: {name: demo, tags: {2024: a}}", 'experiment: {name: demo, tags: {"2024": a}}', 'put it in quotes: "2024"'),
    ("experiment: {name: demo, tags: {op: =}}", 'experiment: {name: demo, tags: {op: "="}}', 'put it in quotes: "="'),
    ("experiment: {name: demo, tags: {op: <<}}", 'experiment: {name: demo, tags: {op: "<<"}}', 'put it in quotes: "<<"'),
    ("experiment: {name: demo, tags: {month: 08}}", 'experiment: {name: demo, tags: {month: "08"}}', '"08" for text'),
    ("experiment: {name: demo, tags: {at: 1:30}}", 'experiment: {name: demo, tags: {at: "1:30"}}', '"1:30" for text'),
    ("experiment: {name: demo, seed: 010}", "experiment: {name: demo, seed: 10}", "write 10 for a number"),
    ("experiment: {name: demo, seed: 08}", "experiment: {name: demo, seed: 8}", "write 8 for a number"),
    ("experiment: {name: demo, seed: 1:30}", "experiment: {name: demo, seed: 90}", "write 90"),
    ("experiment: {name: demo, seed: 1e3}", "experiment: {name: demo, seed: 1000}", "write 1000"),
    ('experiment: {name: demo, seed: "7"}', "experiment: {name: demo, seed: 7}", "drop the quotes"),
    ("experiment: {name: demo, seed: !!null 3}", "experiment: {name: demo, seed: 3}", "remove the tag"),
    ("experiment: {name: demo}\ndefaults: [tracking: off]", 'experiment: {name: demo}\ndefaults: [tracking: "off"]', 'put it in quotes: "off"'),
    ("experiment: {name: demo}\ndefaults: ['resources ': cpu1]", "experiment: {name: demo}\ndefaults: [resources: cpu1]", "check its spaces"),
    ("experiment: {name: demo}\ndefaults: [override resources: cpu1]", "experiment: {name: demo}\ndefaults: [resources: cpu1]", "drop the word `override`"),
]  # fmt: skip
"""The first line of a config, the same after its advice was followed, and the advice."""


@pytest.mark.parametrize(("given", "followed", "advice"), ADVICE, ids=[advice for *_, advice in ADVICE])
def test_advice_about_a_file_works(given: str, followed: str, advice: str, here: Callable[..., Path]) -> None:
    rest = GOOD.partition("\n")[2]
    with pytest.raises(ConfigError) as refused:
        load(here(f"{given}\n{rest}"))
    assert advice in str(refused.value)
    assert load(here(f"{followed}\n{rest}")).experiment.name == "demo"


@pytest.mark.parametrize(
    ("given", "followed"),
    [
        ("training.steps=range(1,5)", "training.steps=3"),
        ("experiment.tags.x=1,2", "experiment.tags.x='1,2'"),
        ("experiment.tags.x=a'b,c", 'experiment.tags.x="a\'b,c"'),
        ("training.optimizer.betas=0.9,0.99", "training.optimizer.betas=[0.9,0.99]"),
        ("task.args.x=1,2", "task.args.x=[1,2]"),
        ("experiment.tags.x=ü", "experiment.tags.x='ü'"),
        ("experiment.tags={2024: a}", "experiment.tags.2024=a"),
        ("experiment.tags={true: a}", "experiment.tags.true=a"),
        ("~task.args.l.1", "task.args.l=[1,3]"),
        ("task.args.l.7=1", "task.args.l=[1]"),
        ("~resources=cpu1", "~resources"),
        ("+resources=cpu1", "resources=cpu1"),
        ("training.log_every_steps=08", "training.log_every_steps=8"),
        ("resources=cpu3", "resources=cpu2"),
        ("extra=2", "extra=1"),
        ("~several=b", "several=[]"),
        ("tracking.uri=", "~tracking.uri"),
        ("experiment.tags.year=2024", "experiment.tags.year='2024'"),
        ("experiment.tags.on=true", "experiment.tags.on='true'"),
        ("experiment.storage=' '", "experiment.storage=/tmp"),
    ],
)
def test_advice_about_an_override_works(given: str, followed: str, here: Callable[..., Path]) -> None:
    text = GOOD.replace('"task:Demo"', '"task:Demo", args: {l: [1, 2, 3]}') + "tracking: {uri: 'http://x'}\n"
    groups = {
        "extra/1.yaml": "# @package task.args\none: 1\n",
        "several/b.yaml": "# @package task.args\ntwo: 1\n",
    }
    file = here(f"defaults: [resources: cpu2, several: [b], _self_]\n{text}", **groups)
    with pytest.raises(ConfigError) as refused:
        load(file, [given])
    assert load(file, [followed])
    key, _, value = followed.partition("=")
    assert key in str(refused.value) or value in str(refused.value)


@pytest.mark.parametrize(
    ("override", "section", "means"),
    [
        ("training.optimizer.lr=1e-4", "optimizer", AdamW(lr=1e-4)),
        ("training.optimizer={lr: 0.1}", "optimizer", AdamW(lr=0.1)),
        ("training.optimizer={kind: sgd}", "optimizer", SGD(kind="sgd")),
        ("training.strategy.find_unused_parameters=true", "strategy", None),
        ("training.strategy={kind: zero, stage: 1}", "strategy", Zero(kind="zero", stage=1)),
    ],
)
def test_a_kind_that_the_reference_calls_a_default_counts(
    override: str, section: str, means: object, here: Callable[..., Path]
) -> None:
    found = getattr(load(here(GOOD), [override]).training, section)
    assert found == means if means is not None else found.kind == "ddp"


def test_an_empty_variable_counts_as_unset(
    here: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_STORAGE", "")
    monkeypatch.setenv("RAY_ADDRESS", "")
    config = load(here(GOOD))
    assert (config.experiment.storage, config.target) == (os.path.expanduser("~/raystack"), Local())
    with pytest.raises(ConfigError, match=r"^config\.yaml:1: experiment\.storage: should not be empty"):
        load(here(GOOD.replace("demo", "demo, storage: ''")))


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["    - shard-{}.tar\n", "      key-{}: {}\n"], ids=["a list", "a mapping"])
def test_the_work_of_loading_is_in_proportion_to_the_entries(entry: str, here: Callable[..., Path]) -> None:
    """Counted in calls, against a tenth of the entries: quadratic would be some hundred times as many."""

    def calls(count: int) -> int:
        entries = "".join(entry.format(index, index) for index in range(count))
        task = f'task:\n  entry: "task:Demo"\n  args:\n    files:\n{entries}'
        file = here(GOOD.replace('task: {entry: "task:Demo"}\n', task))
        profile = cProfile.Profile()
        config = profile.runcall(load, file)
        assert len(config.task.args["files"]) == count
        return sum(each.callcount for each in profile.getstats())

    calls(10)  # caches
    assert calls(2000) < 15 * calls(200)


def test_a_number_that_is_not_finite_is_dumped_as_it_is(here: Callable[..., Path]) -> None:
    args = load(here(GOOD.replace('"task:Demo"', '"task:Demo", args: {least: -.inf, none: .nan}'))).task.args
    assert repr(load(here(dump(load(Path("config.yaml"))))).task.args) == repr(args)
    assert repr(args) == "{'least': -inf, 'none': nan}"


def test_a_mistake_in_what_is_merged_is_placed_where_it_stands(here: Callable[..., Path]) -> None:
    text = "shared: &shared {port: 9000, replicas: two}\nserving: {<<: *shared, port: 9001}\n"
    with pytest.raises(ConfigError) as refused:
        load(here(GOOD + text))
    assert [problem.where for problem in refused.value.problems] == [
        "config.yaml:6: serving.replicas",
        "config.yaml:6: shared",
    ]


def test_a_list_and_a_mapping_do_not_merge(here: Callable[..., Path]) -> None:
    file = here(GOOD + "serving: [1]\n", **{"serving/mine.yaml": "port: 9000\n"})
    with pytest.raises(ConfigError) as refused:
        load(file, ["serving=mine"])
    assert str(refused.value) == (
        "serving/mine.yaml:1: serving: should be a list, as in config.yaml:6 (got a mapping)"
    )


@pytest.mark.parametrize(
    "text", ["NO", "08", "010", "1:30", "=", "<<", "~", "1e999", "2024", "9" * 200, "1_0", "1e3"]
)
def test_what_is_refused_without_quotes_is_dumped_with_them(text: str, here: Callable[..., Path]) -> None:
    quoted = f'"{text}"'
    config = load(here(GOOD.replace('"task:Demo"', f'"task:Demo", args: {{{quoted}: {quoted}}}')))
    assert config.task.args == {text: text}
    assert load(here(dump(config))) == config
    whole = from_mapping(config.model_dump(mode="json"))
    assert (whole.task.args, whole.training) == (config.task.args, config.training)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("_self_.yaml", "rename it to config.yaml"),
        ("a@b.yaml", "rename it to config.yaml"),
        ("a:b.yaml", "rename it to config.yaml"),
        ("${x}.yaml", "rename it to config.yaml"),
        (".yaml", "rename it to .yaml.yaml"),
        ("n" * 5000 + ".yaml", "there is no such config file"),
        ("a\0b.yaml", "there is no such config file"),
        ("", "this is a folder"),
        ("link.yaml", "the link leads to gone.yaml, which is not there"),
        ("loop.yaml", "the link leads to loop.yaml, which is not there"),
    ],
)
def test_names_that_no_config_can_have(name: str, says: str, here: Callable[..., Path]) -> None:
    here(GOOD)
    Path("link.yaml").symlink_to("gone.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    if len(name) < 200 and name.endswith(".yaml") and "\0" not in name and not Path(name).is_symlink():
        Path(name).write_text(GOOD)
    with pytest.raises(ConfigError) as refused:
        load(name)
    assert says in str(refused.value)
    assert "did you mean link.yaml" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "a b.yaml",
        "a=b.yaml",
        "hydra.yaml",
        "optional x.yaml",
        "defaults.yaml",
        "'.yaml",
        "é.yaml",
        "a.b.yaml",
    ],
)
def test_names_that_a_config_may_have(name: str, here: Callable[..., Path]) -> None:
    here(GOOD)
    Path("config.yaml").rename(name)
    assert load(name).experiment.name == "demo"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_group_that_may_not_be_read(here: Callable[..., Path]) -> None:
    file = here(GOOD, **{"resources/mine.yaml": "workers: 2\n"})
    Path("resources/mine.yaml").chmod(0)
    with pytest.raises(
        ConfigError, match=r"^resources/mine\.yaml: the file cannot be read: Permission denied$"
    ):
        load(file, ["resources=mine"])
