"""Client of the Kubernetes API, and the only place that talks to it.

In: kinds, names and plain objects. Out: plain objects as the API sends them, lines of logs, local ports.

Objects are sent by server-side apply with raystack's own field manager and strict validation, so unknown
fields are rejected. All methods raise LaunchError with one clear line.
"""

import copy
import json
import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any

import urllib3

from raystack import __version__
from raystack.errors import LaunchError, Problem, nearest
from raystack.kuberay.api.kinds import MOVING, RESOURCES, ApiResource, Object, event_time
from raystack.kuberay.api.kubeconfig import places
from raystack.kuberay.api.owners import MANAGER, Contested
from raystack.kuberay.api.tunnel import Stream, tunnel
from raystack.plan.kuberay.facts import RAY_KINDS

try:
    import kubernetes
except ImportError:
    absent = Problem(
        "kubernetes", rule="the package is not installed", remedy="pip install 'raystack-ml[kubernetes]'"
    )
    raise LaunchError(absent) from None

__all__ = ["MANAGER", "Client", "ConflictError", "ForbiddenError", "Object"]

logger = logging.getLogger(__name__)

CONNECT_S = 5.0
ANSWER_S = 30.0
CLOSE_S = 0.5
PATIENCE_S = 60.0
"""Time during which requests to an API that has answered before are retried."""
WATCH_S = 60.0
"""Duration of one watch, before it is opened again."""
PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Shortest and longest pause between two watches."""
POLL_S = 2.0
"""Pause between two reads of an object that the user may read but not watch."""
PAGE = 500

Objects = list[Object]
Query = list[tuple[str, str]]

_AWAY = (urllib3.exceptions.HTTPError, OSError)
_BUSY = (429, 502, 503, 504)


class ConflictError(LaunchError):
    """An apply that would change fields set by another manager."""

    def __init__(self, where: str, contested: Sequence[Contested]) -> None:
        super().__init__(
            [Problem(where, rule=f"{each.path} {each.why}", remedy=each.remedy) for each in contested]
        )
        self.where, self.contested = where, tuple(contested)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.contested)


class ForbiddenError(LaunchError):
    """A request that this user's role does not permit."""


class Client:
    """Client for one cluster, as one user, in one namespace."""

    def __init__(
        self,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str = "default",
        home: str = "default",
    ) -> None:
        """Connect with `kubeconfig`, by default KUBECONFIG, ~/.kube/config or the service account.

        `home` is the namespace of commands that name none.
        """
        self.namespace, self.home = namespace, home
        self._api: Any = kubernetes.client.ApiClient(_configuration(kubeconfig, context))
        self._api.user_agent = f"raystack/{__version__}"
        weakref.finalize(self._api, self._api.rest_client.pool_manager.clear)  # its connections end with it
        self._answered = False
        self._moved: dict[str, str] = {}
        self._left_out: set[str] = set()

    def within(self, namespace: str) -> "Client":
        """Return a client of the same cluster for another namespace."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    def left_out(self, causes: Iterable[str]) -> None:
        """Log a warning, once for each cause, that something cannot be read and is left out."""
        for cause in causes:
            if cause not in self._left_out:
                self._left_out.add(cause)
                logger.warning("left out: %s", cause)

    def version(self) -> str:
        """Return the version of Kubernetes, e.g. `v1.34.1`."""
        return str(self._json("GET", "/version")["gitVersion"])

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if there is none of that name."""
        answer = self._ask("GET", self._resource(kind).path(self.namespace, name))
        gone = _names_nothing(answer, name) or (kind == "Namespace" and answer.status == 404)
        return None if gone else _told(answer, f"{kind.lower()}/{name}")

    def list(
        self,
        kind: str,
        *,
        labels: Mapping[str, str] = {},
        fields: Mapping[str, str] = {},
        everywhere: bool = False,
    ) -> Objects:
        """Return all objects with these labels and fields, of the namespace or of all namespaces."""
        resource = self._resource(kind)
        path = resource.path(None if everywhere else self.namespace)
        return self._page(resource, path, _selectors(labels, fields))[1]

    def events(self, kind: str, name: str) -> Objects:
        """Return the events of an object, oldest first."""
        return sorted(
            self.list("Event", fields={"involvedObject.kind": kind, "involvedObject.name": name}),
            key=event_time,
        )

    def watch(self, kind: str, name: str, *, timeout_s: float) -> Iterator[Object | None]:
        """Yield the object now and after every change, None while it does not exist, for `timeout_s`.

        After a dropped connection or an expired resource version the object is read again. If the user may
        read but not watch it, it is polled.
        """
        seen: str | None = ""
        for current in self._states(kind, name, time.monotonic() + timeout_s):
            if (now := _version(current)) != seen:
                yield current
                seen = now

    def apply(self, obj: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Apply an object on the server and return the result, or with `dry_run` what it would be.

        Raises LaunchError for a field that the server does not know and, without `force`, ConflictError for a
        field that another manager has set to a different value.
        """
        kind, name = obj["kind"], obj["metadata"]["name"]
        path = self._resource_of(obj).path(obj["metadata"].get("namespace", self.namespace), name)
        query = [("fieldManager", MANAGER), ("fieldValidation", "Strict"), ("force", str(force).lower())]
        if dry_run:
            query.append(("dryRun", "All"))
        answer = self._ask("PATCH", path, query, body=obj, content="application/apply-patch+yaml")
        return _told(answer, f"{kind.lower()}/{name}")

    def patch(self, kind: str, name: str, body: Object | Objects, *, manager: str = MANAGER) -> Object:
        """Patch an object and return the result.

        A mapping is sent as a merge patch, a list of operations as a JSON patch.
        """
        content = "application/json-patch+json" if isinstance(body, list) else "application/merge-patch+json"
        query = [("fieldManager", manager), ("fieldValidation", "Strict")]
        answer = self._ask(
            "PATCH", self._resource(kind).path(self.namespace, name), query, body=body, content=content
        )
        return _told(answer, f"{kind.lower()}/{name}")

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and, before it, what it owns; do nothing if it is gone."""
        answer = self._ask(
            "DELETE", self._resource(kind).path(self.namespace, name), [("propagationPolicy", "Foreground")]
        )
        if not _names_nothing(answer, name):
            _told(answer, f"{kind.lower()}/{name}")

    def logs(
        self, pod: str, container: str | None = None, *, follow: bool = False, previous: bool = False
    ) -> Iterator[str]:
        """Yield the lines of a container's log without line ends.

        `previous` reads the log of the container before its restart. With `follow` lines are yielded until
        the container ends, across dropped connections.
        """
        last = ""
        while True:
            query: Query = [("container", container)] if container else []
            query += [("previous", "true")] if previous else []
            query += [("follow", "true"), ("timestamps", "true")] if follow else []
            query += [("sinceTime", _second(last))] if last else []
            answer = self._ask(
                "GET", RESOURCES["Pod"].path(self.namespace, f"{pod}/log"), query, stream=follow
            )
            if answer.status >= 300:
                raise _refusal(answer, f"pod/{pod}")
            for line in _lines(answer, cut_is_end=follow):
                stamp, text = _stamped(line) if follow else ("", line)
                # `sinceTime` has a resolution of seconds, so lines already seen are sent again.
                if stamp and stamp <= last:
                    continue
                last = stamp or last
                yield text
            if not follow or not self._runs(pod, container):
                return
            time.sleep(0.5)

    def forward(self, pod: str | Callable[[], str], port: int) -> AbstractContextManager[int]:
        """Return a context with a free local port that leads to `port` of a pod.

        A callable `pod` is called for each new connection.
        """
        return tunnel(lambda: self._dial(pod if isinstance(pod, str) else pod(), port))

    def crds(self) -> dict[str, Object]:
        """Return KubeRay's installed CRDs by kind."""
        found = {
            kind: self.get("CustomResourceDefinition", f"{RESOURCES[kind].plural}.ray.io")
            for kind in RAY_KINDS
        }
        return {kind: crd for kind, crd in found.items() if crd is not None}

    def served(self) -> frozenset[str]:
        """Return KubeRay's kinds that the API serves; empty if KubeRay is not installed."""
        # Discovery is open to every authenticated user, unlike reading CRDs.
        answer = self._ask("GET", f"/apis/{RESOURCES['RayCluster'].api}")
        return (
            frozenset(each["kind"] for each in _told(answer, "KubeRay")["resources"])
            if answer.status != 404
            else frozenset()
        )

    def has(self, group: str) -> bool:
        """Return whether the API serves a group, such as `kueue.x-k8s.io`."""
        answer = self._ask("GET", f"/apis/{group}")
        return answer.status != 404 and bool(_told(answer, group))

    def may(self, verb: str, group: str, resource: str, *, everywhere: bool = False) -> bool:
        """Return whether this user may do something, e.g. `may("create", "ray.io", "rayjobs")`.

        A subresource follows a slash: `pods/log`. By a SelfSubjectAccessReview, which everybody may ask for.
        """
        plural, _, subresource = resource.partition("/")
        about = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        place = {} if everywhere else {"namespace": self.namespace}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = {**kind, "spec": {"resourceAttributes": {**place, **about}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._ask("POST", path, body=body, content="application/json")
        return bool(_told(answer, "what this user may do").get("status", {}).get("allowed"))

    # How it is asked

    def _resource(self, kind: str) -> ApiResource:
        """Return the resource of a kind, with the group's preferred version if that varies."""
        if kind not in RESOURCES:
            close = nearest(kind, RESOURCES)
            remedy = f"did you mean {close}?" if close else None
            raise LaunchError(Problem(kind, rule="raystack does not read that kind of object", remedy=remedy))
        known = RESOURCES[kind]
        group = known.api.partition("/")[0]
        if group not in MOVING:
            return known
        if group not in self._moved:
            answer = self._ask("GET", f"/apis/{group}")
            self._moved[group] = (
                known.api
                if answer.status == 404
                else _told(answer, group)["preferredVersion"]["groupVersion"]
            )
        return replace(known, api=self._moved[group])

    def _resource_of(self, obj: Object) -> ApiResource:
        """Return the resource of a manifest; for a kind not in the table, by API discovery."""
        kind, api = obj["kind"], obj["apiVersion"]
        known = RESOURCES.get(kind)
        if known is not None and known.api == api:
            return known
        answer = self._ask("GET", f"/apis/{api}" if "/" in api else f"/api/{api}")
        served = _told(answer, f"{api} {kind}")["resources"] if answer.status != 404 else []
        for each in served:
            if each["kind"] == kind and "/" not in each["name"]:
                return ApiResource(kind, api, each["name"], each["namespaced"])
        raise LaunchError(
            Problem(
                f"{api} {kind}", rule="the cluster does not know that kind", remedy="install what defines it"
            )
        )

    def _page(self, resource: ApiResource, path: str, query: Query) -> tuple[str, Objects]:
        """Return the resource version of a list, and its items."""
        items: list[Object] = []
        more = ""
        while True:
            page = self._json(
                "GET",
                path,
                [*query, ("limit", str(PAGE)), *([("continue", more)] if more else [])],
                of=resource.plural,
            )
            items += [{"apiVersion": resource.api, "kind": resource.kind, **item} for item in page["items"]]
            more = page["metadata"].get("continue") or ""
            if not more:
                return str(page["metadata"].get("resourceVersion", "")), items

    def _states(self, kind: str, name: str, deadline: float) -> Iterator[Object | None]:
        """Yield the object whenever it may have changed; poll it if it cannot be watched."""
        try:
            yield from self._watched(kind, name, deadline)
        except ForbiddenError as error:
            self.left_out([str(error)])
            while True:
                yield self.get(kind, name)
                if (left := deadline - time.monotonic()) <= 0:
                    return
                time.sleep(min(POLL_S, left))

    def _watched(self, kind: str, name: str, deadline: float) -> Iterator[Object | None]:
        """Yield the object as it was read, then each watched change, and start over when a watch ends."""
        resource, pause = self._resource(kind), PAUSE_S
        path, only = resource.path(self.namespace), _selectors({}, {"metadata.name": name})
        while True:
            version, found = self._page(resource, path, only)
            yield found[0] if found else None
            opened = time.monotonic()
            yield from self._follow(resource, path, [*only, ("resourceVersion", version)], deadline)
            if (left := deadline - time.monotonic()) <= 0:
                return
            time.sleep(min(pause, left))
            # A server that ends every watch at once is asked more and more seldom.
            pause = (
                min(2 * pause, LONGEST_PAUSE_S) if time.monotonic() - opened < LONGEST_PAUSE_S else PAUSE_S
            )

    def _follow(
        self, resource: ApiResource, path: str, query: Query, deadline: float
    ) -> Iterator[Object | None]:
        """Yield changes until the watch ends, its connection drops, its version expires or time is up."""
        left = min(deadline - time.monotonic(), WATCH_S)
        if left <= 0:
            return
        query = [
            *query,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(1, round(left + 0.5)))),
        ]
        answer = self._ask("GET", path, query, stream=True, read_s=left)
        if answer.status == 410:
            return
        if answer.status >= 300:
            raise _refusal(answer, resource.plural)
        with closing(_lines(answer, cut_is_end=True)) as lines:
            for line in lines:
                change = json.loads(line)
                if change["type"] == "ERROR":
                    return
                if change["type"] != "BOOKMARK":
                    yield None if change["type"] == "DELETED" else change["object"]
                if time.monotonic() >= deadline:
                    return

    def _json(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = (), *, of: str = "the API"
    ) -> Object:
        return _told(self._ask(method, path, query), of)

    def _ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Object | Objects | None = None,
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
                request = self._api.param_serialize(
                    method, path, {}, list(query), dict(headers), body, auth_settings=["BearerToken"]
                )
                answer = self._api.call_api(*request, _request_timeout=timeout)
                if not stream:
                    answer.read()
            except kubernetes.client.ApiException as error:  # of TLS: it does not pass
                raise LaunchError(_unreachable(self._api.configuration.host, error.reason)) from error
            except _AWAY as error:
                if time.monotonic() + wait > deadline:
                    raise LaunchError(_unreachable(self._api.configuration.host, error)) from error
            else:
                self._answered = True
                if answer.status not in _BUSY or time.monotonic() + wait > deadline:
                    return answer
                answer.response.close()
            time.sleep(wait)
            wait = min(2 * wait, 5.0)

    def _runs(self, pod: str, container: str | None) -> bool:
        """Return whether the container may still write to its log."""
        found = self.get("Pod", pod)
        if found is None or found.get("status", {}).get("phase") != "Running":
            return False
        states = [
            each for each in found["status"].get("containerStatuses", []) if container in (None, each["name"])
        ]
        return not states or any("running" in each.get("state", {}) for each in states)

    def _dial(self, pod: str, port: int) -> Stream:
        """Return a connection to a port of a pod."""
        # kubernetes.stream.portforward swaps a method of its ApiClient, so each connection needs its own.
        core: Any = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(self._api.configuration))
        ask: Any = kubernetes.stream.portforward
        try:
            forward = ask(core.connect_get_namespaced_pod_portforward, pod, self.namespace, ports=str(port))
        except kubernetes.client.ApiException as error:
            rule = f"no connection to port {port}: {_first_line(error.reason)}"
            raise LaunchError(Problem(f"pod/{pod}", rule=rule, remedy="see whether it runs")) from error
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


def _configuration(kubeconfig: str | None, context: str | None) -> Any:
    """Return the settings for reaching the cluster, with credentials."""
    configuration = kubernetes.client.Configuration()
    configuration.retries = False  # asked again by Client._ask, which knows for how long
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
            Problem("kubeconfig", rule=_first_line(error), remedy="see `kubectl config get-contexts`")
        ) from error
    return configuration


def _selectors(labels: Mapping[str, str], fields: Mapping[str, str]) -> Query:
    wanted = {"labelSelector": labels, "fieldSelector": fields}
    return [
        (name, ",".join(f"{key}={value}" for key, value in pairs.items()))
        for name, pairs in wanted.items()
        if pairs
    ]


def _version(obj: Object | None) -> str | None:
    return None if obj is None else f"{obj['metadata'].get('uid')} {obj['metadata'].get('resourceVersion')}"


def _status(answer: Any) -> Object:
    """Return the Status object of a rejected request; empty if there is none."""
    try:
        status = json.loads(answer.read() or b"{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _names_nothing(answer: Any, name: str) -> bool:
    """Return whether the object was not found, rather than its kind or namespace."""
    if answer.status != 404:
        return False
    details = _status(answer).get("details") or {}
    return details.get("name") == name and details.get("kind") != "namespaces"


def _told(answer: Any, where: str) -> Object:
    """Return the object in a response. Raises LaunchError if the request was rejected."""
    if answer.status >= 300:
        raise _refusal(answer, where)
    told: Object = json.loads(answer.read())
    return told


_UNKNOWN = re.compile(r'(\.[^\s:]+): field not declared in schema|unknown field "([^"]+)"')
"""Messages of server-side apply and of strict validation about a field that is not in the schema."""


def _refusal(answer: Any, where: str) -> LaunchError:
    """Return the error for a rejected request, with a Problem for each cause that the API names."""
    status = _status(answer)
    message = _first_line(status.get("message") or answer.reason or f"status {answer.status}")
    match answer.status:
        case 401:
            return LaunchError(
                Problem(
                    where, rule="the cluster does not know who asks", remedy="log in again, as for kubectl"
                )
            )
        case 403:
            what = str((status.get("details") or {}).get("kind") or where)
            rule = message.partition(" is forbidden: ")[2] or message
            return ForbiddenError(
                Problem(what, rule=rule, remedy="have the role changed, or set another context")
            )
        case 404 if not (status.get("details") or {}).get("name"):
            return LaunchError(
                Problem(
                    where,
                    rule="the cluster does not know that kind of object",
                    remedy="install what defines it",
                )
            )
        case 409 if "conflict" in message.lower() and (status.get("details") or {}).get("causes"):
            return ConflictError(where, [_contested(cause) for cause in status["details"]["causes"]])
        case 400 | 500 if unknown := _UNKNOWN.findall(str(status.get("message"))):
            remedy = "leave it out, or upgrade KubeRay: see `raystack doctor`"
            paths = [f"{where} {(applied or decoded).lstrip('.')}" for applied, decoded in unknown]
            return LaunchError(
                [Problem(path, rule="the cluster does not know this field", remedy=remedy) for path in paths]
            )
        case 422 if (status.get("details") or {}).get("causes"):
            causes = status["details"]["causes"]
            fields = [f"{where} {cause.get('field', '')}".strip() for cause in causes]
            return LaunchError(
                [
                    Problem(field, rule=_first_line(cause["message"]))
                    for field, cause in zip(fields, causes, strict=True)
                ]
            )
        case _:
            return LaunchError(Problem(where, rule=f"the cluster refuses: {message}"))


def _contested(cause: Mapping[str, str]) -> Contested:
    """Return the field of a conflict, and who set it."""
    found = re.search(r'"([^"]+)"', cause.get("message", ""))
    return Contested.by(cause.get("field", "a field"), found.group(1) if found else "somebody else")


def _unreachable(host: str, error: object) -> Problem:
    return Problem(
        host,
        rule=f"the Kubernetes API does not answer: {_first_line(error)}",
        remedy="see whether `kubectl get nodes` works",
    )


def _first_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _lines(answer: Any, *, cut_is_end: bool) -> Generator[str, None, None]:
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
                Problem("log", rule=f"the connection was dropped: {_first_line(error)}")
            ) from error
        return
    finally:
        raw.close()
        raw.release_conn()
    if rest:
        yield rest.decode("utf-8", "replace")


_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?(.*)", re.DOTALL)


def _stamped(line: str) -> tuple[str, str]:
    """Split a line of a log into its timestamp and the rest."""
    found = _STAMP.fullmatch(line)
    return (found.group(1), found.group(2)) if found else ("", line)


def _second(stamp: str) -> str:
    """Return a time without fractions of a second, as `sinceTime` takes it."""
    return re.sub(r"\.\d+", "", stamp)
