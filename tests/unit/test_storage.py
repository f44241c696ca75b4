"""The error for a folder that no run can be kept in says what to set."""

import pytest

from raystack.errors import ConfigError
from raystack.storage import Storage


@pytest.mark.parametrize("url", ["/proc/raystack", "/dev/null", "/dev/null/raystack"])
def test_a_folder_that_cannot_be_made_is_told(url: str) -> None:
    told = (
        rf"^experiment\.storage: {url} refuses: .*; set it, or RAYSTACK_STORAGE, to a folder that may be"
        r" written$"
    )
    with pytest.raises(ConfigError, match=told):
        Storage(url).make("")
