"""Versions of registered models, found by alias or number, and their files.

Importing this module imports MLflow, which takes one to two seconds.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking.client import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from raystack.checkpoint.model import CARD
from raystack.errors import ConfigError, nearest
from raystack.registry.command import Reference
from raystack.registry.connection import connect, translated
from raystack.registry.files import cached, wrong


@dataclass(frozen=True)
class Version:
    """An existing version of a registered model."""

    client: MlflowClient
    wanted: Reference
    found: ModelVersion

    @property
    def uri(self) -> str:
        """`models:/name/version`."""
        return f"models:/{self.found.name}/{self.found.version}"

    def said(self) -> dict[str, str]:
        """Return its tags and, as `description`, its own or else that of the registered model.

        Raises UnavailableError and RejectedError.
        """
        with translated():
            model = self.client.get_registered_model(self.found.name)
        return {**self.found.tags, "description": self.found.description or model.description or ""}

    def pointed(self, alias: str) -> str | None:
        """Return the number of the version of this model that an alias points to. Raises as `said` does."""
        with translated():
            number = self.client.get_registered_model(self.found.name).aliases.get(alias)
        return None if number is None else str(number)

    def point(self, alias: str) -> None:
        """Have an alias point to it. Raises as `said` does."""
        with translated():
            self.client.set_registered_model_alias(self.found.name, alias, str(self.found.version))

    def tag(self, key: str, value: str) -> None:
        """Set a tag. Raises as `said` does."""
        with translated():
            self.client.set_model_version_tag(self.found.name, str(self.found.version), key, value)

    def files(self) -> Path:
        """Return the local folder of the files, a copy unless the artifact store is local.

        Raises ConfigError if it is not a raystack model, UnavailableError and RejectedError.
        """
        client, found = self.client, self.found
        with translated():
            location = client.get_model_version_download_uri(found.name, found.version)
            if is_local_uri(location):
                folder = Path(local_file_uri_to_path(location))
            else:
                repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
                identity = f"{client.tracking_uri} {found.name} {found.version} {found.creation_timestamp}"
                folder = cached(identity, lambda target: repository.download_artifacts("", target))
        if not (folder / CARD).is_file():
            rule = f"its files at {location} are not a raystack model, or cannot be reached from this machine"
            raise wrong(rule, self.wanted.uri, None)
        return folder


def find(tracking_uri: str, header: str | None, wanted: Reference) -> Version:
    """Return the version that the reference currently points to.

    Raises ConfigError, which lists the existing versions, if there is none; UnavailableError and
    RejectedError.
    """
    client = connect(tracking_uri, header)
    with translated():
        try:
            found = (
                client.get_model_version_by_alias(wanted.name, wanted.alias)
                if wanted.alias
                else client.get_model_version(wanted.name, wanted.version or _newest(client, wanted))
            )
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise _missing(client, wanted) from None
    return Version(client, wanted, found)


def _newest(client: MlflowClient, wanted: Reference) -> str:
    numbers = [int(each.version) for each in client.search_model_versions(f'name = "{wanted.name}"')]
    return str(max(numbers, default=0))


def _missing(client: MlflowClient, wanted: Reference) -> ConfigError:
    name, alias = wanted.name, wanted.alias
    known = [model.name for model in client.search_registered_models(max_results=1000)]
    train = f"train with registry.model={name}" + (f" registry.alias={alias}" if alias else "")
    if name not in known:
        close = nearest(name, known)
        rest = wanted.uri.removeprefix(f"models:/{name}")
        hint = f"did you mean models:/{close}{rest}? or " if close else ""
        rule = f"there is no registered model '{name}'; there are: {', '.join(known) or 'none'}"
        return wrong(rule, wanted.uri, hint + train)
    versions = sorted(int(version.version) for version in client.search_model_versions(f'name = "{name}"'))
    aliases = client.get_registered_model(name).aliases
    pairs = [f"{key} -> {value}" for key, value in aliases.items()]
    exist = f"versions {', '.join(map(str, versions)) or 'none'}; aliases {', '.join(pairs) or 'none'}"
    if alias is None and wanted.version is None:
        return wrong(f"model '{name}' has no version yet", wanted.uri, train)
    if alias is None:
        return wrong(f"model '{name}' has no version {wanted.version}; it has {exist}", wanted.uri, train)
    close = nearest(alias, aliases)
    hint = f"did you mean models:/{name}@{close}? or " if close else ""
    rule = f"model '{name}' has no alias '{alias}'; it has {exist}"
    return wrong(rule, wanted.uri, f"{hint}serve models:/{name}/version, or {train}")
