"""Keys of a target wait for it: the same config runs here, on a Ray cluster and on Kubernetes."""

from pathlib import Path

import pytest

from raystack.config import load
from raystack.config.kuberay import KubeRay
from raystack.config.target import Job, Local
from raystack.errors import ConfigError

CONFIG = """\
defaults: [target: {chosen}, _self_]
experiment: {{name: demo}}
task: {{entry: "task:Demo"}}
training: {{steps: 10, batch: {{global: 48}}}}
target:
  image: registry.example.com/raystack:1
  storage: {{volumes: [{{kind: pvc, name: x, mount: /x}}]}}
  secrets: {{A: b/c}}
  cpus: 2
"""


@pytest.mark.parametrize("chosen", ["kuberay", "job", "local"])
def test_keys_wait_for_their_target(chosen: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(chosen=chosen))
    kubernetes, job, here = (load(file, [f"target={name}"]).target for name in ("kuberay", "job", "local"))
    assert isinstance(kubernetes, KubeRay)
    assert kubernetes.image == "registry.example.com/raystack:1"
    assert isinstance(job, Job)
    assert job.cpus == 2
    assert isinstance(here, Local)


@pytest.mark.parametrize(
    ("change", "overrides", "said"),
    [
        (("image:", "imaeg:"), ["target=job"], "target.imaeg: unknown key"),
        (
            ("", ""),
            ["target=job", "target.image=x"],
            "target.image: unknown key .* it belongs to kind kuberay",
        ),
        (("target: kuberay, ", ""), [], "target.secrets: unknown key .* it belongs to kind kuberay"),
        (("  cpus", "  kind: local\n  cpus"), [], "target.secrets: unknown key"),
    ],
)
def test_what_no_target_has_or_nobody_chose_is_a_mistake(
    change: tuple[str, str], overrides: list[str], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(chosen="kuberay").replace(*change))
    with pytest.raises(ConfigError, match=said):
        load(file, overrides)
