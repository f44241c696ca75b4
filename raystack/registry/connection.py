"""MLflow's client for a tracking URI, with short timeouts.

Errors of MLflow and its storage plugins become UnavailableError or RejectedError. Importing this module
imports MLflow, which takes one to two seconds.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from mlflow import environment_variables
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
from mlflow.tracking.request_header.registry import _request_header_provider_registry
from mlflow.utils.logging_utils import disable_logging
from sqlalchemy.exc import SADeprecationWarning

from raystack.errors import RaystackError
from raystack.registry.command import RejectedError, UnavailableError
from raystack.registry.database import prepared
from raystack.registry.reason import reason_of

REQUEST_S = 10
"""Seconds without a byte from the server after which a request counts as unanswered."""

_ASK_AGAIN = (408, 409, 425, 429, 499)
"""4xx status codes that are transient, so worth a retry."""


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors of the block to UnavailableError or RejectedError."""
    try:
        yield
    except (UnavailableError, RejectedError, RaystackError):
        raise
    except Exception as error:  # storage plugins raise types of their own
        reason, status = reason_of(error, REQUEST_S), _status(error)
        if isinstance(error, ImportError) or (400 <= status < 500 and status not in _ASK_AGAIN):
            raise RejectedError(reason, everything=status in (401, 403, 404)) from error
        raise UnavailableError(reason) from error


def _status(error: Exception) -> int:
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    return 503


class _Credentials(RequestHeaderProvider):
    """Provider of the Authorization header of MLflow's requests."""

    # Not through MLflow's environment variables, which every Ray worker would inherit.

    header: str | None = None

    def in_context(self) -> bool:
        return type(self).header is not None

    def request_headers(self) -> dict[str, str | None]:
        return {"Authorization": type(self).header}


_request_header_provider_registry.register(_Credentials)


def connect(uri: str, header: str | None) -> MlflowClient:
    """Return a client with short timeouts and no output. Raise UnavailableError or RejectedError.

    For an SQLite store, this creates the file and its tables. MLflow's environment variables take precedence
    over the settings made here.
    """
    if not logging.getLogger("raystack").isEnabledFor(logging.DEBUG):
        disable_logging()
    # Of a migration too, whose module is named after its revision.
    warnings.filterwarnings("ignore", module=r"mlflow|sqlalchemy|alembic")
    warnings.filterwarnings("ignore", category=SADeprecationWarning)
    environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.default = 0
    environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.default = REQUEST_S
    environment_variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.default = True
    environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.default = False
    _Credentials.header = header
    with translated(), prepared(uri):
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
        return client
