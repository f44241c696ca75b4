"""What a test holds in its hand: the address of the server, and what the operator, the kubelet and the
scheduler would do.

Out comes a cluster with KubeRay's CRDs, and without any controller: nothing happens in it but what the test
does.
"""

import copy
import tempfile
import threading
from pathlib import Path
from typing import Self

import yaml

from fake import events, ownership
from fake.kinds import Kind, Object
from fake.operator import OPERATOR
from fake.refusal import RefusedError
from fake.server import Backend, Server
from fake.store import now
from fake.verbs import Options
from raystack.kuberay.lint.schemas import crds


class FakeCluster:
    """A Kubernetes API on a local port.

    Everything that a test puts in is copied; what it gets is a copy too.
    """

    def __init__(self, token: str | None = None) -> None:
        self._backend = Backend(token)
        self._folder = tempfile.TemporaryDirectory(prefix="fake-cluster-")
        self._server = Server(self._backend)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.kubeconfig = Path(self._folder.name) / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.url, token)), encoding="utf-8")
        store = self._backend.store
        for name in ("default", "kube-system", "kuberay-system"):
            store.put(self._kind("Namespace"), {"metadata": {"name": name}, "status": {"phase": "Active"}})
        for crd in crds().values():
            store.put(self._kind("CustomResourceDefinition"), crd)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="fake cluster",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()
        self._thread.join()
        self._folder.cleanup()
        if self._backend.failures:
            raise RuntimeError("the fake cluster has a defect") from self._backend.failures[0]

    @property
    def requests(self) -> list[str]:
        """Every request so far: `PATCH /apis/...?dryRun=All`."""
        return [*self._backend.requests]

    def put(self, obj: Object, manager: str | None = None) -> Object:
        """Put an object in as it is, status and all, in the place of one that was there. Its namespace comes
        to be with it.

        It is not validated, so that a pod may have only the fields that matter. With a `manager`, that one
        owns what changed.
        """
        kind = self._kind(obj["kind"], obj.get("apiVersion"))
        obj = copy.deepcopy(obj)
        store = self._backend.store
        with store.changed:
            if kind.namespaced:
                namespace = obj["metadata"].setdefault("namespace", "default")
                if store.get(self._kind("Namespace"), namespace) is None:
                    store.put(
                        self._kind("Namespace"),
                        {"metadata": {"name": namespace}, "status": {"phase": "Active"}},
                    )
            live = store.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
            before = (live or {}).get("metadata", {})
            kept = {
                key: before[key]
                for key in ("uid", "creationTimestamp", "generation", "managedFields")
                if key in before
            }
            obj["metadata"] = {**kept, **obj["metadata"]}
            if kind.custom or "spec" in obj:
                obj["metadata"].setdefault("generation", 1)
            if (
                live is not None
                and live.get("spec") != obj.get("spec")
                and obj["metadata"]["generation"] == before.get("generation")
            ):
                obj["metadata"]["generation"] += 1
            if manager is not None:
                obj = ownership.update(
                    kind.schema, live, obj, ownership.Manager(manager, "Update", kind.api_version, now())
                )
            return copy.deepcopy(store.put(kind, obj))

    def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """The object, or None."""
        known = self._kind(kind)
        return copy.deepcopy(self._backend.store.get(known, name, namespace if known.namespaced else ""))

    def all(self, kind: str, namespace: str = "") -> list[Object]:
        """All of a kind, of one namespace or of all."""
        return copy.deepcopy(self._backend.store.all(self._kind(kind), namespace))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object at once, whatever finalizers it has, and what it owns."""
        known = self._kind(kind)
        namespace = namespace if known.namespaced else ""
        with self._backend.store.changed:
            obj = self._backend.verbs.find(known, name, namespace)
            metadata = {key: value for key, value in obj["metadata"].items() if key != "finalizers"}
            self._backend.store.delete(known, {**obj, "metadata": metadata}, "Background")

    def set_status(self, kind: str, name: str, status: Object, namespace: str = "default") -> Object:
        """Replace the status, as an operator does. ValueError where the CRD does not know it so, and the real
        server would drop it.
        """
        known = self._kind(kind)
        with self._backend.store.changed:
            live = self._backend.verbs.find(known, name, namespace if known.namespaced else "")
            new = {**live, "status": copy.deepcopy(status)}
            return (
                self.update(new, OPERATOR, "status")
                if known.custom
                else copy.deepcopy(self._backend.store.put(known, new))
            )

    def event(
        self,
        kind: str,
        name: str,
        reason: str,
        message: str,
        type: str = "Warning",
        namespace: str = "default",
    ) -> None:
        """Tell of an object, as whoever tells of its kind does; the same words again count up."""
        known = self._kind(kind)
        with self._backend.store.changed:
            obj = self._backend.verbs.find(known, name, namespace if known.namespaced else "")
            told = events.Told(obj, reason, message, type, namespace)
            events.write(self._backend.store, told)

    def update(self, obj: Object, manager: str, subresource: str = "") -> Object:
        """Replace an object, or its status alone, as a controller does. ValueError where the server would
        refuse or drop a part.
        """
        kind = self._kind(obj["kind"], obj.get("apiVersion"))
        metadata = obj["metadata"]
        options = Options(manager=manager, subresource=subresource, validation="Strict")
        try:
            done = self._backend.verbs.replace(
                kind, metadata.get("namespace", ""), metadata["name"], copy.deepcopy(obj), options
            )
        except RefusedError as refused:
            raise ValueError(str(refused)) from None
        return copy.deepcopy(done)

    def log(
        self, pod: str, container: str, text: str, namespace: str = "default", previous: bool = False
    ) -> None:
        """Append lines to a container's log, or to that of its previous life."""
        self._backend.verbs.find(self._kind("Pod"), pod, namespace)
        self._backend.logs.write(namespace, pod, container, text, previous)

    def serve(self, pod: str, port: int, local_port: int, namespace: str = "default") -> None:
        """Let a port of a pod lead to one of this machine, for port-forward."""
        self._backend.served.setdefault((namespace, pod), {})[port] = local_port

    def forbid(self, verbs: str, *resources: str) -> None:
        """Refuse verbs for resources, as a role that does not name them: `forbid("get list watch", "pods",
        "pods/log")`.
        """
        self._backend.forbidden.update((verb, resource) for verb in verbs.split() for resource in resources)

    def bind(self, *roles: Object) -> None:
        """Refuse everything that none of these Roles and ClusterRoles allows."""
        self._backend.roles = copy.deepcopy([*roles])

    def expire(self) -> None:
        """Forget the history: watches get 410 Gone and have to list again."""
        self._backend.store.expire()

    def drop(self) -> None:
        """Cut every open watch off, as a load balancer does."""
        with self._backend.store.changed:
            self._backend.drops += 1
            self._backend.store.changed.notify_all()

    def _kind(self, name: str, api_version: str | None = None) -> Kind:
        return self._backend.kinds.named(name, api_version)


def _kubeconfig(url: str, token: str | None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {"token": token} if token else {}}],
        "contexts": [
            {"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "default"}}
        ],
        "current-context": "fake",
    }
