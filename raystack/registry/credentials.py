"""The login for the tracking server: references in the config -> the header of a request, in memory only."""

import base64

from raystack.config.secret import resolve, resolve_all
from raystack.config.tracking import Tracking


def authorization(tracking: Tracking) -> str | None:
    """The Authorization header that the config asks for, or None. Raises ConfigError if a secret is not
    there.
    """
    if tracking.token is not None:
        return f"Bearer {resolve(tracking.token)}"
    if tracking.username is not None and tracking.password is not None:
        pair = f"{resolve_all(tracking.username)}:{resolve(tracking.password)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return None
