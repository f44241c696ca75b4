"""A version in MLflow says where it is served, as long as it is."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raystack import config
from raystack.plan import ServePlan, plan_serving
from raystack.serving.lineage import record

pytestmark = pytest.mark.slow
TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_registered_model("digits")
    for _ in range(3):
        client.create_model_version("digits", f"{tmp_path}/model")
    return uri


def plan(store: str, version: int, *overrides: str) -> ServePlan:
    named = ["tracking=local", f"tracking.uri={store}", f"serving.model=models:/digits/{version}"]
    return plan_serving(config.load(TINY, [*named, "serving.lineage=true", "serving.name=demo", *overrides]))


def served(store: str) -> dict[str, str]:
    versions = MlflowClient(store, store).search_model_versions("name = 'digits'")
    tag = "raystack.deployment.demo"
    return {str(version.version): version.tags[tag] for version in versions if tag in version.tags}


def test_the_version_that_is_served_says_so_and_the_one_before_does_not(store: str) -> None:
    record(plan(store, 1))
    first = served(store)
    assert list(first) == ["1"]
    assert first["1"].endswith(" at http://127.0.0.1:8000/v2/models/demo")
    record(plan(store, 1))
    assert served(store) == first, "it is still the same deployment"
    record(plan(store, 2))
    assert list(served(store)) == ["2"]
    record(plan(store, 2), served=False)
    assert served(store) == {}


def test_without_lineage_or_mlflow_what_is_served_does_not_change(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    record(plan(store, 1, "serving.lineage=false"))
    assert served(store) == {}
    record(plan(store, 1, "tracking.uri=http://127.0.0.1:9"))
    assert "digits is not told where it is served: the connection is refused" in caplog.text
