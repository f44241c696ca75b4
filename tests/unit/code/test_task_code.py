"""From `module:name` to a Task: whose code runs, what travels with it, and what is said when it does not
work.
"""

import re
import zipfile
from collections.abc import Sized
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest

from raystack.code.archive import pack, unpack
from raystack.code.loading import entry, load
from raystack.config.task import Task as TaskConfig
from raystack.errors import ConfigError, PlanError

TINY = Path(__file__).parents[2] / "tiny"


def test_a_module_beside_the_config_is_told_from_one_of_the_same_name_elsewhere(tmp_path: Path) -> None:
    first = load(TaskConfig(entry="task:Tiny", folder=str(TINY)))
    (tmp_path / "task.py").write_text(
        (TINY / "task.py").read_text().replace("length: int = 96", "length: int = 7")
    )
    second = load(TaskConfig(entry="task:Tiny", folder=str(tmp_path)))
    third = load(TaskConfig(entry="task:Tiny", folder=str(TINY)))
    datasets = [cast(Sized, task.train_data()) for task in (first, second, third)]
    assert [len(dataset) for dataset in datasets] == [96, 7, 96]


def test_the_folder_travels_without_hidden_files_and_always_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("task.py", "data/words.txt", ".git/config", "__pycache__/task.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    archive = pack(tmp_path)
    (tmp_path / "task.py").touch()
    assert pack(tmp_path) == archive
    assert zipfile.ZipFile(BytesIO(archive)).namelist() == ["data/words.txt", "task.py"]
    folder = Path(unpack(archive))
    assert (folder / "data" / "words.txt").read_text() == "data/words.txt"
    assert unpack(archive) == str(folder)


def test_a_folder_that_is_too_large_to_travel_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(
        PlanError,
        match=(
            r"task.folder: .* may hold 32 MiB \(got 33 MiB, the largest file is .*data.bin\); keep data"
            r" elsewhere"
        ),
    ):
        pack(tmp_path)


@pytest.mark.parametrize(
    ("entry", "args", "message"),
    [
        (
            "tusk:Tiny",
            {},
            r"task.entry: there is no module 'tusk' in .* among the installed packages \(got tusk:Tiny\)",
        ),
        (
            "task:Tinny",
            {},
            r"task.entry: there is no 'Tinny' in .*task.py \(got task:Tinny\); did you mean 'task:Tiny'\?",
        ),
        (
            "task:Tiny",
            {"lenght": 3},
            r"task.entry: task:Tiny raised while it was built: TypeError: .*'lenght'",
        ),
        (
            "task:Tiny",
            {"broken": "build"},
            r"raised while it was built: RuntimeError: no such table; see task.py:\d+",
        ),
        ("task:Path", {}, r"task.entry: a task needs signature, model, .* \(got task:Path\)"),
        (
            "broken:Any",
            {},
            r"task.entry: importing broken failed: NameError: name 'nothing' is not defined; see broken.py:2",
        ),
        (
            "needs:Any",
            {},
            (
                r"task.entry: importing needs failed: ModuleNotFoundError: No module named 'not_installed';"
                r" see needs.py:1"
            ),
        ),
    ],
)
def test_a_task_that_cannot_be_built_is_one_error(
    tmp_path: Path, entry: str, args: dict[str, object], message: str
) -> None:
    (tmp_path / "task.py").write_text((TINY / "task.py").read_text())
    (tmp_path / "broken.py").write_text("\nnothing\n")
    (tmp_path / "needs.py").write_text("import not_installed\n")
    with pytest.raises(ConfigError) as caught:
        load(TaskConfig(entry=entry, args=args, folder=str(tmp_path)))
    assert len(caught.value.problems) == 1
    assert re.search(message, str(caught.value))


def test_a_secret_in_the_arguments_is_read_where_the_task_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.py").write_text((TINY / "task.py").read_text())
    config = TaskConfig(entry="task:Tiny", args={"ledger": "secret:env:TINY_TOKEN"}, folder=str(tmp_path))
    with pytest.raises(
        ConfigError, match="secret:env:TINY_TOKEN: there is no such environment variable on this machine"
    ):
        load(config)
    monkeypatch.setenv("TINY_TOKEN", "hush")
    assert vars(load(config))["ledger"] == "hush"
    assert "hush" not in repr(config)


def test_a_task_of_another_folder_gets_its_own_helpers(tmp_path: Path) -> None:
    """As two versions of a served model: the modules beside the entry are of one folder too."""
    for size in (1, 2):
        folder = tmp_path / str(size)
        (folder / "parts").mkdir(parents=True)
        (folder / "helper_of_task.py").write_text(f"SIZE = {size}\n")
        (folder / "parts/__init__.py").write_text(f"SIZE = {size}\n")
        text = "import helper_of_task, parts\n\ndef make(): return helper_of_task.SIZE, parts.SIZE\n"
        (folder / f"entry_{size}.py").write_text(text)
    made = [
        entry(TaskConfig(entry=f"entry_{size}:make", folder=str(tmp_path / size))) for size in ("1", "2", "1")
    ]
    assert [make() for make in made] == [(1, 1), (2, 2), (1, 1)]
