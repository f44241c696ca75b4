"""From an alias that moves in a real MLflow server to traffic on the new version, and back to its run."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow_server import free_port, mlflow_server

from raystack import Experiment
from raystack.config.follow import Follow, Webhook
from raystack.outcome import Outcome
from raystack.plan.follow import FollowPlan
from raystack.registry.webhooks import register_webhook
from raystack.rollout.follow.run import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
SECRET = "secret:env:RAYSTACK_TEST_WEBHOOK"
LONGEST_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def experiment(server: str, tmp_path: Path, ray_cluster: str) -> Experiment:
    """Two versions are registered, and the first is served by its alias."""
    common = ["tracking=local", f"tracking.uri={server}", f"experiment.storage={tmp_path}"]
    for seed in (1, 2):
        named = ["registry.model=tiny", "registry.alias=null", f"experiment.seed={seed}"]
        Experiment(TINY, *common, *named).train(lambda event: None)
    MlflowClient(server).set_registered_model_alias("tiny", "champion", "1")
    small = ["serving.cpus_per_replica=0.25", f"serving.port={free_port()}", "serving.lineage=true"]
    served = ["serving.model=models:/tiny@champion", f"target.address={ray_cluster}", "resources.wait_s=240"]
    return Experiment(TINY, *common, *small, *served)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_alias_that_moves_brings_its_version_by_the_webhook(
    experiment: Experiment, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raystack.serving.deploy import undeploy

    monkeypatch.setenv("RAYSTACK_TEST_WEBHOOK", "whsec-of-a-test")
    port = free_port()
    webhook = Webhook(port=port, path="/hook", secret=SECRET, register_as=f"http://127.0.0.1:{port}/hook")
    config, client = experiment.config, MlflowClient(server)
    # Polling alone would not find it in the time of the test.
    follow = Follow(poll_s=10 * LONGEST_S, webhook=webhook)
    plan = FollowPlan("tiny", "champion", follow, config.tracking, f"{tmp_path}/follow", False, config)
    outcome = experiment.deploy()
    assert isinstance(outcome, Outcome)
    url = outcome.links["url"]
    said: list[str] = []
    over = threading.Event()
    following = threading.Thread(target=run, args=(plan, said.append), kwargs={"ends": over.is_set})
    following.start()
    try:
        (tensor,) = httpx.get(url, timeout=10).json()["inputs"]
        shape = [1, *tensor["shape"][1:]]
        request = {"inputs": [{**tensor, "shape": shape, "data": [0.0] * shape[1]}]}

        def answering() -> httpx.Headers:
            return httpx.post(f"{url}/infer", json=request, timeout=10).raise_for_status().headers

        assert answering()["raystack-version"] == "1"
        until(lambda: len(said) > 1)
        client.set_registered_model_alias("tiny", "champion", "2")
        until(lambda: answering()["raystack-version"] == "2")
        run_id = answering()["raystack-run"]
        assert client.get_model_version("tiny", "2").tags["raystack.run_id"] == run_id
        until(lambda: "raystack.deployment.tiny" in client.get_model_version("tiny", "2").tags)
        until(lambda: "raystack.deployment.tiny" not in client.get_model_version("tiny", "1").tags)
    finally:
        over.set()
        client.set_registered_model_alias("tiny", "champion", "1")
        following.join(LONGEST_S)
        undeploy("tiny")
    assert not following.is_alive()
    (registered,) = client.list_webhooks()
    again = register_webhook(server, None, registered.name, registered.url, "another secret")
    assert again == registered.webhook_id
    assert len(client.list_webhooks()) == 1
    assert said[2] == "models:/tiny@champion has moved from models:/tiny/1 to models:/tiny/2"
