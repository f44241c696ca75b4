"""Client of the Kubernetes API, and the only place that talks to it.

In: kinds, names and plain objects. Out: plain objects as the API sends them, lines of logs, local ports.

Objects are sent by server-side apply with raystack's own field manager and strict validation, so unknown
fields are rejected. All methods raise LaunchError with one clear line.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from raystack.kuberay.api import podlog, reading
from raystack.kuberay.api.discovery import Discovery
from raystack.kuberay.api.kinds import RESOURCES, Object, event_time
from raystack.kuberay.api.owners import MANAGER
from raystack.kuberay.api.refusal import ConflictError, ForbiddenError, names_nothing, told
from raystack.kuberay.api.transport import Transport
from raystack.kuberay.api.tunnel import tunnel
from raystack.plan.kuberay.facts import RAY_KINDS

__all__ = ["MANAGER", "Client", "ConflictError", "ForbiddenError", "Object"]

logger = logging.getLogger(__name__)

POLL_S = 2.0
"""Pause between two reads of an object that the user may read but not watch."""

Objects = list[Object]


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
        self._transport = Transport(kubeconfig, context)
        self._known = Discovery(self._transport)
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
        return str(self._transport.json("GET", "/version")["gitVersion"])

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if there is none of that name."""
        answer = self._transport.ask("GET", self._known.resource(kind).path(self.namespace, name))
        gone = names_nothing(answer, name) or (kind == "Namespace" and answer.status == 404)
        return None if gone else told(answer, f"{kind.lower()}/{name}")

    def list(
        self,
        kind: str,
        *,
        labels: Mapping[str, str] = {},
        fields: Mapping[str, str] = {},
        everywhere: bool = False,
    ) -> Objects:
        """Return all objects with these labels and fields, of the namespace or of all namespaces."""
        resource = self._known.resource(kind)
        path = resource.path(None if everywhere else self.namespace)
        return reading.page(self._transport, resource, path, reading.selectors(labels, fields))[1]

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
        path = self._known.resource_of(obj).path(obj["metadata"].get("namespace", self.namespace), name)
        query = [("fieldManager", MANAGER), ("fieldValidation", "Strict"), ("force", str(force).lower())]
        if dry_run:
            query.append(("dryRun", "All"))
        answer = self._transport.ask("PATCH", path, query, body=obj, content="application/apply-patch+yaml")
        return told(answer, f"{kind.lower()}/{name}")

    def patch(self, kind: str, name: str, body: Object | Objects, *, manager: str = MANAGER) -> Object:
        """Patch an object and return the result.

        A mapping is sent as a merge patch, a list of operations as a JSON patch.
        """
        content = "application/json-patch+json" if isinstance(body, list) else "application/merge-patch+json"
        query = [("fieldManager", manager), ("fieldValidation", "Strict")]
        answer = self._transport.ask(
            "PATCH", self._known.resource(kind).path(self.namespace, name), query, body=body, content=content
        )
        return told(answer, f"{kind.lower()}/{name}")

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and, before it, what it owns; do nothing if it is gone."""
        answer = self._transport.ask(
            "DELETE",
            self._known.resource(kind).path(self.namespace, name),
            [("propagationPolicy", "Foreground")],
        )
        if not names_nothing(answer, name):
            told(answer, f"{kind.lower()}/{name}")

    def logs(
        self, pod: str, container: str | None = None, *, follow: bool = False, previous: bool = False
    ) -> Iterator[str]:
        """Yield the lines of a container's log without line ends.

        `previous` reads the log of the container before its restart. With `follow` lines are yielded until
        the container ends, across dropped connections.
        """
        if not follow:
            return podlog.read(self._transport, self.namespace, pod, container, previous=previous)
        return podlog.follow(self._transport, self.namespace, pod, container, lambda: self.get("Pod", pod))

    def forward(self, pod: str | Callable[[], str], port: int) -> AbstractContextManager[int]:
        """Return a context with a free local port that leads to `port` of a pod.

        A callable `pod` is called for each new connection.
        """
        return tunnel(
            lambda: self._transport.dial(self.namespace, pod if isinstance(pod, str) else pod(), port)
        )

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
        answer = self._transport.ask("GET", f"/apis/{RESOURCES['RayCluster'].api}")
        return (
            frozenset(each["kind"] for each in told(answer, "KubeRay")["resources"])
            if answer.status != 404
            else frozenset()
        )

    def has(self, group: str) -> bool:
        """Return whether the API serves a group, such as `kueue.x-k8s.io`."""
        answer = self._transport.ask("GET", f"/apis/{group}")
        return answer.status != 404 and bool(told(answer, group))

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
        answer = self._transport.ask("POST", path, body=body, content="application/json")
        return bool(told(answer, "what this user may do").get("status", {}).get("allowed"))

    def _states(self, kind: str, name: str, deadline: float) -> Iterator[Object | None]:
        """Yield the object whenever it may have changed; poll it if it cannot be watched."""
        try:
            yield from reading.watch(
                self._transport, self._known.resource(kind), self.namespace, name, deadline
            )
        except ForbiddenError as error:
            self.left_out([str(error)])
            while True:
                yield self.get(kind, name)
                if (left := deadline - time.monotonic()) <= 0:
                    return
                time.sleep(min(POLL_S, left))


def _version(obj: Object | None) -> str | None:
    return None if obj is None else f"{obj['metadata'].get('uid')} {obj['metadata'].get('resourceVersion')}"
