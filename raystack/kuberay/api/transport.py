"""Requests to the Kubernetes API, as one user.

In: a method, a path and a body. Out: the response, whatever its status, or its lines as they arrive.
"""

import os
import time
import weakref
from collections.abc import Generator, Sequence
from typing import Any

import urllib3

from raystack import __version__
from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.api.kubeconfig import places
from raystack.kuberay.api.refusal import first_line, told, undialled, unreachable
from raystack.kuberay.api.tunnel import Stream

try:
    import kubernetes
except ImportError:
    absent = Problem(
        "kubernetes", rule="the package is not installed", remedy="pip install 'raystack-ml[kubernetes]'"
    )
    raise LaunchError(absent) from None

CONNECT_S = 5.0
ANSWER_S = 30.0
CLOSE_S = 0.5
PATIENCE_S = 60.0
"""Time during which requests to an API that has answered before are retried."""

Query = list[tuple[str, str]]

_AWAY = (urllib3.exceptions.HTTPError, OSError)
_BUSY = (429, 502, 503, 504)


class Transport:
    """Connections to one API server."""

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        """Raises LaunchError if there is no kubeconfig, or no such context in it."""
        self.api: Any = kubernetes.client.ApiClient(_configuration(kubeconfig, context))
        self.api.user_agent = f"raystack/{__version__}"
        weakref.finalize(self.api, self.api.rest_client.pool_manager.clear)  # its connections end with it
        self._answered = False

    def ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Object | list[Object] | None = None,
        content: str | None = None,
        stream: bool = False,
        read_s: float | None = None,
    ) -> Any:
        """Send a request and return the response, whatever its status."""
        # All requests sent here are idempotent, so they can be retried. An API that has never answered is
        # reported at once.
        deadline = time.monotonic() + (PATIENCE_S if self._answered else 0.0)
        headers = {"Accept": "application/json", **({"Content-Type": content} if content else {})}
        timeout = (CONNECT_S, read_s if stream else ANSWER_S)
        wait = 0.25
        while True:
            try:
                request = self.api.param_serialize(
                    method, path, {}, list(query), dict(headers), body, auth_settings=["BearerToken"]
                )
                answer = self.api.call_api(*request, _request_timeout=timeout)
                if not stream:
                    answer.read()
            except kubernetes.client.ApiException as error:  # of TLS: it does not pass
                raise LaunchError(unreachable(self.api.configuration.host, error.reason)) from error
            except _AWAY as error:
                if time.monotonic() + wait > deadline:
                    raise LaunchError(unreachable(self.api.configuration.host, error)) from error
            else:
                self._answered = True
                if answer.status not in _BUSY or time.monotonic() + wait > deadline:
                    return answer
                answer.response.close()
            time.sleep(wait)
            wait = min(2 * wait, 5.0)

    def json(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = (), *, of: str = "the API"
    ) -> Object:
        """Return what `of` names. Raises LaunchError if the request was rejected."""
        return told(self.ask(method, path, query), of)

    def dial(self, namespace: str, pod: str, port: int) -> Stream:
        """Return a connection to a port of a pod."""
        # kubernetes.stream.portforward swaps a method of its ApiClient, so each connection needs its own.
        core: Any = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(self.api.configuration))
        ask: Any = kubernetes.stream.portforward
        try:
            forward = ask(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except kubernetes.client.ApiException as error:
            raise undialled(f"pod/{pod}", port, error.reason) from error
        return _Forwarded(forward, port)


class _Forwarded:
    """Port-forwarding as a stream."""

    def __init__(self, forward: Any, port: int) -> None:
        self._websocket, stream = forward.websocket, forward.socket(port)
        self.recv, self.sendall, self.shutdown, self._close = (
            stream.recv,
            stream.sendall,
            stream.shutdown,
            stream.close,
        )

    def close(self) -> None:
        """Close the connection, and return once it is closed."""
        self._close()
        deadline = time.monotonic() + CLOSE_S
        while self._websocket.sock is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        # The kubernetes package leaves a websocket open that the other end has closed.
        self._websocket.shutdown()


def lines(answer: Any, *, cut_is_end: bool) -> Generator[str, None, None]:
    """Yield the lines of a body as they arrive.

    With `cut_is_end` a dropped connection counts as the end of the body.
    """
    raw = answer.response
    rest = b""
    try:
        for block in [answer.read()] if answer.data is not None else raw.stream(None):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
    except _AWAY as error:
        if not cut_is_end:
            raise LaunchError(
                Problem("log", rule=f"the connection was dropped: {first_line(error)}")
            ) from error
        return
    finally:
        raw.close()
        raw.release_conn()
    if rest:
        yield rest.decode("utf-8", "replace")


def _configuration(kubeconfig: str | None, context: str | None) -> Any:
    """Return the settings for reaching the cluster, with credentials."""
    configuration = kubernetes.client.Configuration()
    configuration.retries = False  # asked again by Transport.ask, which knows for how long
    configuration.keep_alive = True
    settings: Any = kubernetes.config
    found = places(kubeconfig)
    try:
        if any(map(os.path.isfile, found)):
            files = os.pathsep.join(found)
            settings.load_kube_config(config_file=files, context=context, client_configuration=configuration)
        elif kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            settings.load_incluster_config(client_configuration=configuration)
        else:
            rule = (
                "there is no kubeconfig"
                if kubeconfig or context
                else "there is no kubeconfig, and this is no pod"
            )
            remedy = "set target.kubeconfig, --kubeconfig or KUBECONFIG"
            raise LaunchError(Problem("kubeconfig", rule=rule, got=os.pathsep.join(found), remedy=remedy))
    except settings.ConfigException as error:
        raise LaunchError(
            Problem("kubeconfig", rule=first_line(error), remedy="see `kubectl config get-contexts`")
        ) from error
    return configuration
