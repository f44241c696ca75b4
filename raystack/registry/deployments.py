"""Where versions of registered models are served, as tags of the versions. Importing this imports MLflow."""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Collection, Iterator

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking.client import MlflowClient

from raystack.registry.connection import connect, translated

TAG = "raystack.deployment"
"""Name of a tag, before a dot and the name that the model is served under."""
PAGE = 1000


def write_deployment(
    tracking_uri: str, header: str | None, model: str, versions: Collection[str], name: str, where: str
) -> None:
    """Have the versions of a registered model be tagged as served under a name, and no others.

    A tag that a version has stays, with its time. Raises UnavailableError and RejectedError.
    """
    client, key = connect(tracking_uri, header), f"{TAG}.{name}"
    with translated():
        for version in versions:
            if key not in client.get_model_version(model, version).tags:
                client.set_model_version_tag(model, version, key, where)
        for found in _of(client, model):
            if key in found.tags and str(found.version) not in versions:
                client.delete_model_version_tag(model, str(found.version), key)


def _of(client: MlflowClient, model: str) -> Iterator[ModelVersion]:
    """Yield the versions of a model."""
    token = None
    while True:
        page = client.search_model_versions(f'name = "{model}"', PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
