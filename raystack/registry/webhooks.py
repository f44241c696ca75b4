"""MLflow's webhooks: where its server tells that an alias has moved. Importing this module imports MLflow."""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Iterator

from mlflow.entities.webhook import Webhook, WebhookEvent, WebhookEventStr
from mlflow.tracking.client import MlflowClient

from raystack.registry.connection import connect, translated

EVENTS: tuple[WebhookEventStr, ...] = ("model_version_alias.created", "model_version_alias.deleted")
PAGE = 100


def register_webhook(tracking_uri: str, header: str | None, name: str, url: str, secret: str) -> str:
    """Have MLflow tell `url` of aliases that move, signed with the secret; return the webhook's id.

    One of that name is changed and not doubled. Raises UnavailableError and RejectedError.
    """
    client = connect(tracking_uri, header)
    with translated():
        known = next((each for each in _all(client) if each.name == name), None)
        events: list[WebhookEventStr | WebhookEvent] = list(EVENTS)
        if known is None:
            return str(client.create_webhook(name, url, events, secret=secret, status="ACTIVE").webhook_id)
        client.update_webhook(known.webhook_id, name, None, url, events, secret, "ACTIVE")
        return str(known.webhook_id)


def _all(client: MlflowClient) -> Iterator[Webhook]:
    token = None
    while True:
        page = client.list_webhooks(PAGE, token)
        yield from page
        token = page.token
        if not token:
            return
