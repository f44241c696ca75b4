"""What libraries take for granted on a machine: a home folder, and one for temporary files with a short name.

Ray, PyTorch and MLflow look for both in the environment when they are imported. In a container with a user id
of its own there may be none; what is missing is put into the environment of this process, which its workers
inherit. What the user has set stays, where it can be used.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from raystack.errors import LaunchError, Problem

logger = logging.getLogger(__name__)

LONGEST = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Longest path, in bytes, of a folder in which Ray can make its sockets: the system allows 107 in all."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders with a short name that most machines have."""


def settle() -> None:
    """Set what the environment lacks. Idempotent. Raises LaunchError if no folder can be used."""
    _shorten()
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or not os.path.isdir(home) or not os.access(home, os.R_OK | os.X_OK):
        os.environ["HOME"] = _own(tempfile.gettempdir(), "home")


def made_up() -> Mapping[str, str]:
    """Return the variables set for lack of a home, for processes that do not inherit them."""
    home = os.environ.get("HOME", "")
    return {"HOME": home} if home == os.path.join(tempfile.gettempdir(), _name(), "home") else {}


def ray_folder() -> str:
    """Return the folder of Ray's sessions. Unlike Python, Ray does not read TEMP and TMP."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")


def _shorten() -> None:
    """Point TMPDIR at an existing folder with a short path: a link if the user's own is too long."""
    if (config := os.environ.get("RAY_TMPDIR")) is not None and len(os.fsencode(config)) > LONGEST:
        rule = f"should have at most {LONGEST} characters: Ray makes its sockets there"
        raise LaunchError(
            Problem("RAY_TMPDIR", rule=rule, got=config, remedy="leave it out, or name another folder")
        )
    config = os.environ.get("TMPDIR")
    try:
        place = os.path.abspath(tempfile.gettempdir())
    except FileNotFoundError:
        rule = "there is no folder for temporary files that may be written"
        raise LaunchError(Problem("TMPDIR", rule=rule, got=config, remedy="set it to one")) from None
    if config and os.path.abspath(config) != place:
        logger.warning("TMPDIR=%s cannot be written to: %s is used", config, place)
    if len(os.fsencode(place)) > LONGEST:
        place = _link(place)
    if config is not None or place != tempfile.gettempdir():
        os.environ["TMPDIR"] = tempfile.tempdir = place


def _link(place: str) -> str:
    """Return a link with a short name to the folder, which still holds the files."""
    for short in SHORT:
        if os.path.isdir(short) and os.access(short, os.W_OK | os.X_OK):
            link = os.path.join(_own(short, "tmp"), hashlib.sha256(os.fsencode(place)).hexdigest()[:8])
            with suppress(FileExistsError):
                os.symlink(place, link)
            return link
    rule = f"should have at most {LONGEST} characters: Ray makes its sockets there"
    raise LaunchError(
        Problem("TMPDIR", rule=rule, got=place, remedy="set it to a folder with a shorter path")
    )


def _own(above: str, name: str) -> str:
    """Return a folder of this user's below `above`, private, made if it is missing."""
    for folder in (os.path.join(above, _name()), os.path.join(above, _name(), name)):
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            rule = f"the folder cannot be made: {error.strerror}"
            raise LaunchError(
                Problem(folder, rule=rule, remedy="set HOME and TMPDIR to folders of your own")
            ) from error
        # In a shared folder such as /tmp another user may have made it first, or put a link in its place.
        if os.lstat(folder).st_uid != os.getuid():
            rule = "the folder belongs to somebody else"
            raise LaunchError(Problem(folder, rule=rule, remedy="set HOME and TMPDIR to folders of your own"))
    return folder


def _name() -> str:
    return f"raystack-{os.getuid()}"
