# ruff: noqa: E501 (tables)
"""Groups in folders of folders, packages and overrides of them are found as Hydra itself finds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from raystack.config import load
from raystack.errors import ConfigError

GOOD = """\
experiment: {name: demo}
task: {entry: "task:Demo", args: {own: 1}}
training: {steps: 10, batch: {global: 8}}
"""
FILES = {
    "task/args/db/mysql.yaml": "defaults: [engine: inno, _self_]\nkind: mysql\nport: 1\n",
    "task/args/db/pg.yaml": "kind: pg\n",
    "task/args/db/deep/one.yaml": "defaults: [/task/args/db/engine: my, ../x/y@z: w]\n",
    "task/args/db/deep/two.yaml": "defaults: [engine: my]\ntwo: 2\n",
    "task/args/db/deep/engine/my.yaml": "deep: 1\n",
    "task/args/db/engine/inno.yaml": "name: inno\nport: 3\n",
    "task/args/db/engine/my.yaml": "name: my\n",
    "task/args/cache.yaml": "size: 3\n",
    "args/db/plain.yaml": "# @package task.args.db\nname: plain\n",
    "args/db/nested.yaml": "# @package task.args\ndefaults: [/args/db: plain, more/x, _self_]\nnested: true\n",
    "args/db/more/x.yaml": "# @package task.args.more\nx: 1\n",
    "args/db/1.yaml": "# @package task.args\none: 1\n",
    "args/db/off.yaml": '# @package task.args\nswitch: "off"\n',
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A folder with groups; writes a config with a defaults list into it."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)

    def write(defaults: str) -> Path:
        Path("config.yaml").write_text(f"defaults: {defaults}\n{GOOD}")
        return tmp_path / "config.yaml"

    return write


def by_hydra(file: Path, overrides: list[str]) -> Any:
    with initialize_config_dir(config_dir=str(file.parent), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=overrides).task.args)


@pytest.mark.parametrize(
    ("defaults", "overrides"),
    [
        ("[task/args/db: mysql, _self_]", []),
        ("[/task/args/db: mysql, _self_]", []),
        ("[task/args/db: mysql, _self_]", ["task/args/db=pg"]),
        ("[task/args/db: mysql, _self_]", ["task/args/db/engine=my"]),
        ("[task/args/db: mysql, override task/args/db/engine: my, _self_]", []),
        ("[task/args/db: pg, task/args/db/engine: inno, _self_]", ["~task/args/db"]),
        ("[task/args/db: pg, _self_]", ["+task/args/db/engine=inno"]),
        ("[task/args/db/deep: two, _self_]", []),
        ("[task/args/db/deep: two, _self_]", ["task/args/db/deep/engine=my"]),
        ("[task/args/db: deep/two, _self_]", []),
        ("[task/args/db: [mysql, pg], _self_]", []),
        ("[task/args/db: pg, _self_]", ["task/args/db=[mysql,pg]"]),
        ("[task/args/cache, _self_]", []),
        ("[task/args/cache@task.args.other, _self_]", []),
        ("[args/db: plain, _self_]", []),
        ("[args/db@task.args.backup: plain, _self_]", []),
        ("[args/db@task.args.a: plain, args/db@task.args.b: plain, _self_]", ["args/db@task.args.b=off"]),
        ("[args/db: nested, _self_]", []),
        ("[optional args/db: nothing, optional nothing: x, _self_]", []),
        ("[args/db: '1', _self_]", []),
        ("[args/db: plain, _self_]", ["args/db='1'"]),
        ("[args/db: 'off', _self_]", []),
        ("[args/db: null, _self_]", []),
        ("[args/db: null, _self_]", ["args/db=plain"]),
        ("[task/args/db: pg, args/db: '${task/args/db}', _self_]", ["task/args/db=pg"]),
    ],
)
def test_a_group_is_found_as_hydra_finds_it(
    defaults: str, overrides: list[str], here: Callable[[str], Path]
) -> None:
    file = here(defaults)
    if "${" in defaults:
        Path("args/db/pg.yaml").write_text("# @package task.args\nfollowed: true\n")
    expected = by_hydra(file, overrides)
    assert load(file, overrides).task.args == expected
    assert expected["own"] == 1


def test_a_choice_is_taken_as_it_was_typed(here: Callable[[str], Path]) -> None:
    assert load(here("[_self_]"), ["args/db=1"]).task.args["one"] == 1
    assert load(here("[_self_]"), ["args/db=off"]).task.args["switch"] == "off"


@pytest.mark.parametrize(
    ("defaults", "overrides", "says"),
    [
        ("[task/args/db: mysq]", [], "config.yaml:1: defaults: the group 'task/args/db' has no choice 'mysq'; did you mean 'mysql'? choices: mysql, pg"),
        ("[task/args/dv: pg]", [], "config.yaml:1: defaults: there is no config group 'task/args/dv'; did you mean 'task/args/db'?"),
        ("[]", ["task/args/dv=pg"], "override 'task/args/dv=pg': there is no config group 'task/args/dv'; did you mean 'task/args/db'?"),
        ("[]", ["task/args/db/engine=m"], "override 'task/args/db/engine=m': the group 'task/args/db/engine' has no choice 'm'; did you mean 'my'? choices: inno, my"),
        ("[task/args/db/deep: one]", [], "task/args/db/deep/one.yaml:1: defaults: should be the name of a config group (got '../x/y@z'); check its spaces and slashes"),
        ("[args/db@task.args.a: plain]", ["args/db=off"], "override 'args/db=off': the defaults list has 'args/db@task.args.a'; write args/db@task.args.a=off, or +args/db=off to choose once more"),
        ("[args/db: [plain, '1']]", ["~args/db"], "override '~args/db': a list of choices cannot be deleted; write args/db=[]"),
        ("[args/db@hydra: plain]", [], "config.yaml:1: defaults: Hydra's own settings have no effect here; remove them"),
        ("[]", ["experiment.name@x=y"], "override 'experiment.name@x=y': there is no config group 'experiment.name'; groups: "),
    ],
)  # fmt: skip
def test_a_mistake_about_a_group_is_one_line(
    defaults: str, overrides: list[str], says: str, here: Callable[[str], Path]
) -> None:
    file = here(defaults)
    with pytest.raises(ConfigError) as refused:
        load("config.yaml", overrides)
    assert file.is_file()
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_lists_that_lead_on_and_on_end(here: Callable[[str], Path]) -> None:
    file = here("[chain: c0]")
    Path("chain").mkdir()
    for index in range(50):
        Path(f"chain/c{index}.yaml").write_text(f"# @package task.args\ndefaults: [c{index + 1}]\n")
    with pytest.raises(
        ConfigError, match="defaults lists lead to 30 files in a row, or 1000 in all; use fewer"
    ):
        load(file)
    for index in range(12):
        Path(f"chain/c{index}.yaml").write_text(f"defaults: [{', '.join([f'c{index + 1}'] * 9)}]\n")
    with pytest.raises(ConfigError, match="or 1000 in all"):
        load(file)
