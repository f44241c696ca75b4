"""What lint says of the options of `ray start` is what Ray's own command line says."""

import click
import pytest
from ray.scripts.scripts import start

from raystack.kuberay.lint.ray_options import HIGH_PORTS, OPTIONS, wrong

pytestmark = pytest.mark.slow

VALUES = {"4", "0", "2.0", "500m", "4Gi", "1e9", "yes", "no", "maybe", "auto", "pretty", "1_000", "/tmp/ray"}
LATER = {
    **{name: {"4", "1_000"} for name in (*HIGH_PORTS, "object-store-memory")},
    "worker-port-list": VALUES,
}
"""Values that Ray's command line takes, and Ray refuses as it starts."""


def test_the_options_are_those_of_ray() -> None:
    real = {flag.removeprefix("--") for each in start.params for flag in each.opts if flag.startswith("--")}
    assert set(OPTIONS) == real


@pytest.mark.parametrize("name", sorted(name for name, kind in OPTIONS.items() if kind != "json"))
def test_values_are_refused_where_ray_refuses_them(name: str) -> None:
    refused = {value for value in VALUES if _refused(name, value)}
    assert {value for value in VALUES if wrong(name, value)} == refused | LATER.get(name, set())


def _refused(name: str, value: str) -> bool:
    try:
        start.make_context("start", [f"--{name}={value}"])
    except click.ClickException:
        return True
    return False
