"""A model's URI -> the folder of its files, or the version that it means now."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.config.tracking import Tracking
from raystack.errors import Problem, ServingError
from raystack.registry.command import Reference, RejectedError, UnavailableError
from raystack.registry.credentials import authorization
from raystack.registry.files import model_folder, wrong

if TYPE_CHECKING:
    from raystack.registry.versions import Version


def resolve(uri: str, tracking: Tracking) -> Path:
    """The local folder with `model.json` at its root that `uri` means: `models:/name@alias`,
    `models:/name/version`, or a checkpoint's folder or URL. `tracking` has its `uri` decided.

    Files of a local artifact store are used where they are; remote ones are downloaded once per version and
    machine. Raises ConfigError where the model, alias, version or folder does not exist, ServingError where
    MLflow does not answer.
    """
    if not uri.startswith("models:"):
        return model_folder(uri)
    return find_files(uri, tracking)[1]


def find_files(uri: str, tracking: Tracking) -> tuple[str, Path]:
    """What `models:/name@alias` or `models:/name/version` means now: the version, as `models:/name/version`,
    and the local folder of its files. Raises as `resolve` does.
    """
    try:
        version = version_of(uri, tracking)
        return version.uri, version.files()
    except (UnavailableError, RejectedError) as error:
        raise _unanswered(uri, tracking, error) from None


def pin(uri: str, tracking: Tracking) -> str:
    """`models:/name@alias` -> the `models:/name/version` that it points to now; a version, if it exists.
    Raises as `resolve` does.
    """
    try:
        return version_of(uri, tracking).uri
    except (UnavailableError, RejectedError) as error:
        raise _unanswered(uri, tracking, error) from None


def describe(uri: str, tracking: Tracking) -> dict[str, str]:
    """Return the tags of a version and, as `description`, its own or else its model's. Raises as `resolve`
    does.
    """
    try:
        return version_of(uri, tracking).said()
    except (UnavailableError, RejectedError) as error:
        raise _unanswered(uri, tracking, error) from None


def newest_version(model: str, tracking: Tracking) -> str:
    """Return the newest version of a registered model, `models:/name/version`. Raises as `resolve` does."""
    try:
        return version_of(f"models:/{model}/0", tracking, newest=True).uri
    except (UnavailableError, RejectedError) as error:
        raise _unanswered(f"models:/{model}", tracking, error) from None


def version_of(uri: str, tracking: Tracking, *, newest: bool = False) -> "Version":
    """Return the version that `models:/name@alias` or `models:/name/version` means, or the model's newest.

    Raises ConfigError if there is none, UnavailableError and RejectedError.
    """
    parts = re.fullmatch(r"models:/+([^/:@]+)(?:@([^/@]+)|/(\d+))", uri)
    if parts is None:
        rule = "a model in the registry is written models:/name@alias or models:/name/version"
        raise wrong(rule, uri, None)
    tracking_uri = tracking.uri
    if tracking_uri is None:
        rule = "a model in the registry needs MLflow, and tracking is off"
        raise wrong(rule, uri, "use tracking=local or name the checkpoint's folder")
    if tracking_uri.startswith("sqlite:///") and not Path(tracking_uri.removeprefix("sqlite:///")).is_file():
        rule, remedy = (
            f"there is no MLflow store at {tracking_uri} yet",
            "train with registry.model=... first",
        )
        raise wrong(rule, f"models:/{parts[1]}" if newest else uri, remedy)
    from raystack.registry.versions import find  # imports MLflow

    wanted = Reference(uri, parts[1], parts[2], parts[3])
    if newest:
        wanted = Reference(f"models:/{parts[1]}", parts[1], None, None)
    return find(tracking_uri, authorization(tracking), wanted)


def _unanswered(uri: str, tracking: Tracking, error: Exception) -> ServingError:
    rule, remedy = f"MLflow does not give out {uri}: {error}", "is its server up?"
    return ServingError(Problem("tracking.uri", rule=rule, got=tracking.uri, remedy=remedy))
