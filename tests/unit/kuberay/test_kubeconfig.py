"""The namespace that kubectl would use."""

from pathlib import Path

import pytest
import yaml

from raystack.errors import LaunchError
from raystack.kuberay.api import kubeconfig


def config(file: Path, current: str | None, **contexts: str | None) -> str:
    """A kubeconfig with these contexts and their namespaces."""
    named = [
        {"name": name, "context": {"cluster": "c", **({"namespace": space} if space else {})}}
        for name, space in contexts.items()
    ]
    file.write_text(yaml.safe_dump({"current-context": current, "contexts": named}), encoding="utf-8")
    return str(file)


def test_a_context_names_the_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = config(tmp_path / "first", None, here="team", there=None)
    second = config(tmp_path / "second", "here", here="other", far="away")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'none'}:{second}")
    assert kubeconfig.namespace() == "team"  # the first file that has the context
    assert kubeconfig.namespace(context="far") == "away"
    assert kubeconfig.namespace(context="there") == "default"
    assert kubeconfig.namespace(second) == "other"
    (tmp_path / "second").write_text("a: [", encoding="utf-8")
    assert kubeconfig.namespace(second) == "default"


def test_a_place_that_is_named_and_not_there_is_refused(tmp_path: Path) -> None:
    """A manifest for another namespace would be rendered without a word."""
    file = config(tmp_path / "config", "here", here="team", there="other")
    with pytest.raises(LaunchError, match=r"the kubeconfig has none of that name \(got ther\).* there\?"):
        kubeconfig.namespace(file, "ther")
    with pytest.raises(LaunchError, match=r"there is no such file \(got .*none\)"):
        kubeconfig.namespace(str(tmp_path / "none"))


def test_a_pod_names_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert kubeconfig.namespace() == "default"
    (tmp_path / "namespace").write_text("jobs\n", encoding="utf-8")
    monkeypatch.setattr(kubeconfig, "IN_POD", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert kubeconfig.namespace() == "jobs"
