"""A step of a rollout on Kubernetes: the shares of both versions are those inside Serve, in objects that are
valid against the schemas of the Gateway API and of Istio as npm's packages bring them.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.errors import PlanError, RaystackError
from raystack.kuberay.actions.prepare import prepare_rollout
from raystack.kuberay.manifest import Manifest, render_rollout
from raystack.plan.kuberay import plan_routes
from raystack.plan.kuberay.routes import whole

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "examples" / "05_kubernetes" / "service.yaml"
PUBLISHED = Path(__file__).parent / "published"
STEPS = "steps: [{weight: 0.05}, {weight: 0.125}, {weight: 1.0}]"
MESHES = {
    "gateway": "{kind: gateway}",
    "gateway through": (
        "{kind: gateway, gateway: infra/public, hosts: [digits.example.com], listener: https,"
        " grpc_listener: grpc}"
    ),
    "istio": "{kind: istio}",
    "istio through": "{kind: istio, gateway: infra/public, hosts: ['*.example.com']}",
}
INSTALL_S = 120.0
CHECK_S = 30.0

Check = Callable[[list[Manifest]], str]


def rendered(*overrides: str, mesh: str | None = None, step: int = 1) -> tuple[Manifest, ...]:
    rollout = f"rollout={{model: 'models:/digits/8', {STEPS}}}"
    words = ["serving.model=models:/digits/7", rollout, *overrides]
    if mesh is not None:
        words.append(f"rollout.mesh={mesh}")
    return render_rollout(plan_routes(load(CONFIG, words), step), Bundle({}))


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[dict[str, Any]]:
    return [each["spec"] for each in manifests if each["kind"] == kind]


def applications(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in yaml.safe_load(service["serveConfigV2"])["applications"]}


def test_one_service_has_both_versions_and_the_split() -> None:
    (service,) = of_kind(rendered("rollout.sticky.header=x-user"), "RayService")
    beside, stable = applications(service).values()
    assert (beside["route_prefix"], stable["route_prefix"]) == (None, "/")
    settings = [each["deployments"][0]["user_config"] for each in (beside, stable)]
    assert [each["model"] for each in settings] == ["models:/digits/8", "models:/digits/7"]
    assert settings[1]["split"]["models"] == {"models:/digits/8": 0.05}
    assert settings[1]["split"]["sticky"]["header"] == "x-user"
    group = service["rayClusterConfig"]["workerGroupSpecs"][0]
    assert group["replicas"] == 6, "each version has its replicas"


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_mesh_has_the_shares_of_serve(mesh: str, step: int) -> None:
    inside = of_kind(rendered(step=step), "RayService")[0]
    split = applications(inside)["digits"]["deployments"][0]["user_config"]["split"]
    (share,) = split["models"].values()
    manifests = rendered("serving.grpc_port=9000", mesh=MESHES[mesh], step=step)
    names = [each["metadata"]["name"] for each in manifests if each["kind"] == "RayService"]
    assert names == ["digits", "digits-candidate"]
    if "istio" in mesh:
        shared = [rule["route"] for rule in of_kind(manifests, "VirtualService")[0]["http"]]
        named = [[each["destination"]["host"] for each in route] for route in shared]
    else:
        found = [*of_kind(manifests, "GRPCRoute"), *of_kind(manifests, "HTTPRoute")]
        shared = [spec["rules"][0]["backendRefs"] for spec in found]
        named = [[each["name"] for each in route] for route in shared]
    assert named == [[f"{name}-{suffix}" for name in names] for suffix in ("grpc", "serve-svc")]
    for route in shared:
        stable, candidate = (each["weight"] for each in route)
        assert candidate / (stable + candidate) == share


def test_a_service_for_grpc_leads_to_the_pods_of_its_version() -> None:
    manifests = rendered("serving.grpc_port=9000", mesh=MESHES["istio"])
    selected = [spec["selector"]["app.kubernetes.io/instance"] for spec in of_kind(manifests, "Service")]
    services = of_kind(manifests, "RayService")
    pods = [each["rayClusterConfig"]["workerGroupSpecs"][0]["template"] for each in services]
    assert [pod["metadata"]["labels"]["app.kubernetes.io/instance"] for pod in pods] == selected


def test_copies_are_mirrored() -> None:
    difference = "rollout.analysis.difference={mirrored: 0.125}"
    (route,) = of_kind(rendered(difference, mesh=MESHES["gateway"]), "HTTPRoute")
    mirror = route["rules"][0]["filters"][0]["requestMirror"]
    assert mirror["fraction"] == {"numerator": 125, "denominator": 1000}
    (virtual,) = of_kind(rendered(difference, mesh=MESHES["istio"]), "VirtualService")
    assert virtual["http"][0]["mirrorPercentage"] == {"value": 12.5}
    assert virtual["http"][0]["mirror"]["host"] == "digits-candidate-serve-svc"
    (last,) = of_kind(rendered(difference, mesh=MESHES["gateway"], step=3), "HTTPRoute")
    assert "filters" not in last["rules"][0], "with all requests there is nothing to compare"


def test_weights_are_whole_and_never_rounded_to_none_or_all() -> None:
    assert [whole(share) for share in (0.0, 0.05, 0.29, 1.0)] == [(100, 0), (95, 5), (71, 29), (0, 100)]
    assert whole(0.001) == (999, 1)
    assert whole(1 / 3) == (666_667, 333_333)
    assert (whole(1e-9), whole(1 - 1e-9)) == ((999_999, 1), (1, 999_999))


REFUSED = {
    "rollout.sticky": ("rollout.sticky.header=x-user", MESHES["istio"]),
    "rollout.mesh.grpc_listener": (
        "serving.grpc_port=9000",
        "{kind: gateway, gateway: public, listener: http}",
    ),
    "target.upgrade.gateway_class": (
        (
            "target={upgrade: {kind: NewClusterWithIncrementalUpgrade, gateway_class: istio},"
            " autoscaling: {enabled: true}}"
        ),
        MESHES["gateway"],
    ),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_a_mesh_cannot_do_is_refused(key: str) -> None:
    override, mesh = REFUSED[key]
    with pytest.raises(PlanError) as refused:
        rendered(override, mesh=mesh)
    assert [each.where for each in refused.value.problems] == [key]


def test_a_step_that_is_not_there_is_refused() -> None:
    with pytest.raises(RaystackError, match="from 0 to 3"):
        rendered(step=4)


def test_lint_has_nothing_against_two_services() -> None:
    words = ["serving.model=models:/digits/7", "rollout={model: 'models:/digits/8', mesh: {kind: gateway}}"]
    prepared = prepare_rollout(load(CONFIG, words), 0)
    assert prepared.warnings == ()
    named = [(each["kind"], each["metadata"]["name"]) for each in prepared.manifests]
    assert len(named) == len(set(named))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Returns what breaks the published schemas, a line each."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to install the published schemas with")
    folder = tmp_path_factory.mktemp("published")
    for file in PUBLISHED.iterdir():
        shutil.copy(file, folder)
    words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    home = {**os.environ, "npm_config_cache": str(folder / "cache")}
    done = subprocess.run(words, cwd=folder, env=home, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        pytest.skip(f"npm cannot install the published schemas: {done.stderr[-200:]}")

    def checked(manifests: list[Manifest]) -> str:
        command = ["node", str(folder / "check.mjs")]
        text = json.dumps(manifests)
        ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=CHECK_S)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return checked


@pytest.mark.slow
def test_routes_are_valid_against_their_published_schemas(check: Check) -> None:
    routes: list[Manifest] = []
    for mesh in MESHES.values():
        for mirrored in (0.05, 0.125):
            difference = f"rollout.analysis.difference={{mirrored: {mirrored}}}"
            found = rendered("serving.grpc_port=9000", difference, mesh=mesh)
            routes += [each for each in found if each["kind"].endswith(("Route", "VirtualService"))]
    assert len(routes) == 12
    assert check(routes) == ""
    weights = json.dumps(routes).replace('"weight": 95', '"weight": "95"')
    assert check(json.loads(weights)).count("must be integer") == 16, "one for each route in them"
    assert "no field wieght" in check(json.loads(json.dumps(routes).replace("weight", "wieght")))
