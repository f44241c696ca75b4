"""Public clusters said by keys: what they ask for is rendered, is valid, and nothing is said against it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystack.code.bundle import Bundle
from raystack.config import load
from raystack.kuberay.lint import Operator, documents, lint, schema_findings
from raystack.kuberay.lint.schemas import crds
from raystack.kuberay.manifest import render
from raystack.plan import plan_kuberay

PUBLIC = Path(__file__).parents[3] / "examples" / "05_kubernetes" / "public"
ASKED: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "public_cases.yaml").read_text(encoding="utf-8")
)


def missing(asked: Any, made: Any, path: str = "spec") -> list[str]:
    """The paths at which what is asked for is not what was made."""
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        pairs = [(asked[key], made.get(key), f"{path}.{key}") for key in asked]
    elif isinstance(asked, list) and isinstance(made, list) and len(asked) <= len(made):
        pairs = [(each, made[place], f"{path}[{place}]") for place, each in enumerate(asked)]
    else:
        return [] if asked == made else [f"{path}: {made!r} and not {asked!r}"]
    return [each for pair in pairs for each in missing(*pair)]


def test_each_has_what_it_asks_for() -> None:
    assert {file.stem for file in PUBLIC.glob("*.yaml")} == set(ASKED)


@pytest.mark.parametrize("name", ASKED)
def test_a_public_cluster_is_said_by_keys(name: str) -> None:
    plan = plan_kuberay(load(PUBLIC / f"{name}.yaml"), None, ASKED[name]["form"])
    manifests = list(render(plan, Bundle({"config.yaml": b"a: 1\n"})))
    scheduler = plan.target.queue.scheduler
    found = lint(documents(manifests), Operator(scheduler=None if scheduler == "none" else scheduler))
    assert [str(each) for each in found] == []
    main = manifests[-1]
    assert schema_findings(documents([main])[0], crds()[main["kind"]]) == []
    assert missing(ASKED[name]["spec"], main["spec"]) == []
