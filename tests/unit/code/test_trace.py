"""What is shown of an error in the user's code fits on a screen, and comes from another process whole."""

import pickle
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from raystack.code.loading import RemoteTraceError, blame, frames, trace

CODE = """
def deep(n):
    return deep(n + 1)

def ring(n):
    return (one, two)[n % 2](n)

def one(n):
    return ring(n + 1) if n < 40 else fail("\\n".join(map(str, range(50))))

def two(n):
    return ring(n + 1)

def fail(text):
    raise ValueError(text)
"""


@pytest.fixture
def task(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "task.py"
    file.write_text(CODE)
    names: dict[str, Any] = {}
    code: CodeType = compile(CODE, str(file), "exec")
    exec(code, names)
    return names


def raised(function: Any, argument: Any) -> Exception:
    try:
        function(argument)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("name", ["deep", "ring"])
def test_a_long_way_and_a_long_message_fit_on_a_screen(
    task: dict[str, Any], tmp_path: Path, name: str
) -> None:
    shown = trace(raised(task[name], 0), str(tmp_path))
    assert shown is not None
    assert len(shown.splitlines()) <= 45
    assert shown.startswith('  File "task.py", line ')
    if name == "deep":
        assert "[Previous line repeated" in shown
    else:
        assert shown.endswith("... 50 lines")


def test_an_error_of_another_process_is_told_with_its_own_lines(task: dict[str, Any], tmp_path: Path) -> None:
    error = raised(task["fail"], "broken")
    here = trace(error, str(tmp_path)), blame(error, str(tmp_path))
    sent = pickle.loads(pickle.dumps((error, frames(error))))
    with pytest.raises(ValueError, match="broken") as received:
        raise sent[0] from RemoteTraceError(sent[1])
    assert (trace(received.value, str(tmp_path)), blame(received.value, str(tmp_path))) == here
    assert here[1] == "task.py:15"
