"""What becomes of a Ray that cannot be started."""

import pytest
import ray

from raystack.config.target import Local
from raystack.errors import LaunchError
from raystack.launch.local import cluster


def test_a_ray_that_does_not_start_is_one_line_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def overloaded(*_: object, **__: object) -> None:
        raise Exception(
            "The current node timed out during startup. This could happen because the GCS has become"
            " overloaded."
        )

    monkeypatch.setattr(ray, "init", overloaded)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test of this process may have one
    told = r"ray: Ray could not be started: The current node timed out .* run with -v"
    with pytest.raises(LaunchError, match=told), cluster(Local(), verbose=False, meanwhile="json"):
        pass
