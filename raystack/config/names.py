"""Names that others decide about: MLflow, Kubernetes and the resolver of host names.

What they would refuse later is refused before anything starts.
"""

import ipaddress
import posixpath
import re
from typing import Annotated

from pydantic import AfterValidator

from raystack.config.secret import no_password
from raystack.config.section import Pattern, Text


def _one_path(name: str) -> str:
    """As `path_not_unique` in mlflow/utils/validation.py: names may become paths of files."""
    if posixpath.normpath(name) != name or name == "." or name.startswith(("..", "/")):
        raise ValueError("should not look like a path: no '.', '..' or empty part between slashes")
    return name


def _not_a_version(alias: str) -> str:
    """As `_validate_model_alias_name_reserved` there."""
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ValueError(
            "should not be 'latest' or look like a version, e.g. 'v3': MLflow keeps those for itself"
        )
    return alias


def _is_number(host: str) -> bool:
    """Whether the last part of a name is a number, be it hexadecimal: it is no name then."""
    return re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", host.rpartition(".")[2]) is not None


def _host(host: str) -> str:
    """A name does not end in digits alone: many resolvers read `0` as every interface."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
        if not re.fullmatch(rf"({label}\.)*{label}", host, re.ASCII) or _is_number(host):
            rule = "should be a host name or an address, e.g. 127.0.0.1, or 0.0.0.0 for every interface"
            raise ValueError(rule) from None
    return host


# `_validate_model_name` in mlflow/utils/validation.py, and the column's 256 characters in
# mlflow/store/model_registry/dbmodels/models.py. '@' would not be found again in models:/name@alias.
MODEL = r"(?=.*\S)[^/:@\x00-\x1f\x7f]{1,256}"
ModelName = Annotated[
    str,
    Pattern(f"^{MODEL}$", "should be a name of at most 256 characters without '/', ':' and '@'"),
    AfterValidator(_one_path),
]

# `_validate_model_alias_name`: the characters, and MAX_REGISTERED_MODEL_ALIAS_LENGTH.
ALIAS = r"[A-Za-z][\w-]{0,254}"
Alias = Annotated[
    str,
    Pattern(
        f"^{ALIAS}$",
        "should start with a letter and go on with letters, digits, '_' and '-', 255 characters at most",
    ),
    AfterValidator(_not_a_version),
]


def _not_our_own(tag: str) -> str:
    """MLflow keeps a run's name as a tag, and refuses a run whose name and tag differ."""
    if tag == "mlflow.runName" or tag.startswith("raystack."):
        raise ValueError(
            "should not be 'mlflow.runName' or begin with 'raystack.': raystack sets those itself"
        )
    return tag


# `_validate_tag_name`, `_validate_metric_name` and MAX_ENTITY_KEY_LENGTH.
_ENTITY = "should be letters, digits, spaces and '_-.:/', 250 characters at most"
TagName = Annotated[
    str, Pattern(r"^[/\w.\- :]{1,250}$", _ENTITY), AfterValidator(_one_path), AfterValidator(_not_our_own)
]
MetricName = Annotated[
    str,
    Pattern(r"^eval/.+$", "should be the metric of an evaluation, written eval/<name>"),
    Pattern(r"^[/\w.\- :]{1,250}$", _ENTITY),
    AfterValidator(_one_path),
]
TagValue = Annotated[str, Pattern(r"^[\s\S]{0,8000}$", "should have 8000 characters at most")]
"""MAX_TAG_VAL_LENGTH; MLflow would cut it."""

VariableName = Annotated[
    str,
    Pattern(
        r"^[A-Za-z_.-][\w.-]*$",
        "should be the name of a variable: letters, digits, '_', '-' and '.'",
    ),
]
"""As Kubernetes takes it."""

Host = Annotated[str, AfterValidator(_host)]


def check_version(reference: str) -> None:
    """Raise ValueError where `models:/name@alias` or `models:/name/version` names what MLflow cannot have."""
    found = re.fullmatch(rf"models:/({MODEL})(?:@({ALIAS})|/(\d{{1,9}}))", reference)
    if found is None:
        raise ValueError(
            "should be models:/name@alias, models:/name/version, or a checkpoint's folder or URL"
        )
    _one_path(found[1])
    if found[2] is not None:
        _not_a_version(found[2])


def _reference(model: str) -> str:
    if model.startswith("models:"):
        check_version(model)
    return no_password(model)


ModelReference = Annotated[Text, AfterValidator(_reference)]
"""MLflow's URI of one version of a model, or the folder or URL of one."""
