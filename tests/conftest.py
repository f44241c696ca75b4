"""One storage folder and one Ray for the whole test run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import end_commands
from warm import Warm

if TYPE_CHECKING:
    from raystack.plan import TrainPlan

TINY = Path(__file__).parent / "tiny" / "config.yaml"
BESIDE = Path(__file__).parents[2] / "shared"

BENCHMARKS = "tests/contract/test_benchmarks.py"
WITH_RAY = (
    "tests/ray/",
    *(f"{BENCHMARKS}::test_{name}" for name in ("recovery", "training", "rollouts", "a_served")),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What compares with files beside the project is left out where there are none."""
    if not BESIDE.is_dir():
        left_out = [item for item in items if item.get_closest_marker("beside")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of two processes one has all tests with a Ray, because two Rays on a machine take each other's ports; a
    file stays whole.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneRay(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(WITH_RAY) else nodeid.partition("::")[0]

    return OneRay(config, log)


@pytest.fixture(scope="session", autouse=True)
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """RAYSTACK_STORAGE of every config that is loaded, and the PATH of an activated environment; processes
    inherit both.
    """
    folder = tmp_path_factory.mktemp("storage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSTACK_STORAGE", str(folder))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        yield folder


@pytest.fixture(autouse=True)
def commands_end() -> Iterator[None]:
    """What a test leaves running ends with it, also where it fails."""
    yield
    end_commands()


@pytest.fixture(scope="session")
def warm(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Runs commands in forks of a process that has imported torch, Ray and MLflow."""
    runs = Warm(tmp_path_factory.mktemp("warm"))
    yield runs
    runs.close()


@pytest.fixture(scope="session")
def dashboard() -> Iterator[str]:
    """Address of the dashboard of the one local Ray of the test run; this process is connected to it."""
    from raystack.config.target import Local
    from raystack.launch.local import cluster

    with cluster(
        Local(dashboard=True), verbose=False, meanwhile="raystack.training.driver.run", cpus=4
    ) as address:
        assert address is not None
        yield address


@pytest.fixture(scope="session")
def ray_cluster(dashboard: str) -> str:
    """Address of that Ray itself."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture
def plan_tiny(tmp_path: Path) -> Callable[..., "TrainPlan"]:
    """A plan of the tiny task with overrides; its storage is the test's own folder."""

    def plan(*overrides: str, run_id: str = "tiny-1") -> "TrainPlan":
        from raystack.config import load
        from raystack.plan import plan_training

        return plan_training(load(TINY, [f"experiment.storage={tmp_path}", *overrides]), run_id)

    return plan


@pytest.fixture(scope="session")
def tiny_llama(storage: Path) -> Path:
    """What the third example fine-tunes, made as its page says."""
    from pages import ROOT, commands, shortened

    (command,) = [command for command in commands() if "make_model" in command]
    subprocess.run(shortened(command), cwd=ROOT, check=True, capture_output=True, timeout=100)
    return storage / "docstrings"
