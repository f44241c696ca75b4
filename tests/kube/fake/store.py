"""Where the objects are: versions, watches and deletion.

In go whole objects, out come objects with their metadata and the changes since some version. Nothing here
knows of schemas or HTTP. An object in the store is never changed; a write puts another one in its place.
"""

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from fake.kinds import Kind, Kinds, Object
from fake.refusal import expired

FOREGROUND = "foregroundDeletion"
Propagation = Literal["Foreground", "Background", "Orphan"]


@dataclass(frozen=True)
class Change:
    """One write."""

    version: int
    kind: Kind
    before: Object | None
    after: Object | None
    """None where it was deleted; `before` then carries the version of the deletion."""


class Store:
    """All objects of the cluster. Whoever reads and then writes holds `changed`, which is a lock too."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        self.changed = threading.Condition(threading.RLock())
        self.version = 1
        self.closed = False
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
        self._history: list[Change] = []
        self.oldest = 0

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """The object, or None."""
        return self._objects.get((kind.group, kind.kind), {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """All of a kind, of one namespace or of all, by name."""
        with self.changed:
            found = self._objects.get((kind.group, kind.kind), {})
            return [
                obj
                for (where, _), obj in sorted(found.items(), key=lambda entry: entry[0])
                if namespace in ("", where)
            ]

    def put(self, kind: Kind, obj: Object) -> Object:
        """Write an object as it is, but for its version. A new one gets a uid and its time; a deleted one
        that nothing holds goes.
        """
        with self.changed:
            metadata = obj["metadata"]
            namespace = metadata.get("namespace", "")
            before = self.get(kind, metadata["name"], namespace)
            self.version += 1
            born = {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            metadata = {**born, **metadata, "resourceVersion": str(self.version)}
            after = {"apiVersion": kind.api_version, "kind": kind.kind, **obj, "metadata": metadata}
            self._objects.setdefault((kind.group, kind.kind), {})[namespace, metadata["name"]] = after
            self._record(Change(self.version, kind, before, after))
            if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
                self._drop(kind, after)
            return after

    def delete(self, kind: Kind, obj: Object, propagation: Propagation) -> Object | None:
        """Delete an object and what it owns. Returns what is left of it while finalizers hold it, or None."""
        with self.changed:
            finalizers = [*obj["metadata"].get("finalizers", ())]
            if propagation == "Foreground" and FOREGROUND not in finalizers:
                finalizers.append(FOREGROUND)
            if finalizers:
                leaving = {
                    "deletionTimestamp": now(),
                    "deletionGracePeriodSeconds": 0,
                    "finalizers": finalizers,
                }
                obj = self.put(kind, {**obj, "metadata": {**obj["metadata"], **leaving}})
                if FOREGROUND in finalizers:
                    self._delete_owned(obj, "Foreground")
                    self._release(obj["metadata"]["uid"])
                return self.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
            self._drop(kind, obj, orphan=propagation == "Orphan")
            return None

    def changes(self, after: int, timeout_s: float) -> list[Change]:
        """Changes since a version; waits for one. Raises RefusedError with 410 where the history no longer
        reaches back so far.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.version > after, timeout_s)
            if after < self.oldest:
                raise expired(after, self.oldest)
            return [change for change in self._history if change.version > after]

    def expire(self) -> None:
        """Forget the history: every watch, those that are open too, has to start again from a list."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self._history.clear()
            self.changed.notify_all()

    def close(self) -> None:
        """End every wait."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _record(self, change: Change) -> None:
        self._history.append(change)
        if change.kind.kind == "CustomResourceDefinition":
            if change.after is not None:
                self.kinds.learn(change.after)
            elif change.before is not None:
                self.kinds.forget(change.before)
        self.changed.notify_all()

    def _drop(self, kind: Kind, obj: Object, orphan: bool = False) -> None:
        metadata = obj["metadata"]
        namespace = metadata.get("namespace", "")
        del self._objects[kind.group, kind.kind][namespace, metadata["name"]]
        self.version += 1
        last = {**obj, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        self._record(Change(self.version, kind, last, None))
        if not orphan:
            self._delete_owned(last, "Background")
        for owner in metadata.get("ownerReferences", ()):
            self._release(owner["uid"])
        if kind.kind == "Namespace":
            for inner_kind, inner in [*self._everything()]:
                if inner["metadata"].get("namespace") == metadata["name"]:
                    self.delete(inner_kind, inner, "Background")

    def _delete_owned(self, owner: Object, propagation: Propagation) -> None:
        for kind, obj in [*self._owned(owner["metadata"]["uid"])]:
            if "deletionTimestamp" not in obj["metadata"] and self.get(
                kind, obj["metadata"]["name"], obj["metadata"].get("namespace", "")
            ):
                self.delete(kind, obj, propagation)

    def _release(self, uid: str) -> None:
        """Let an owner go that waited for what it owns, once that is gone."""
        for kind, obj in [*self._everything()]:
            metadata = obj["metadata"]
            if (
                metadata["uid"] != uid
                or "deletionTimestamp" not in metadata
                or FOREGROUND not in metadata.get("finalizers", ())
            ):
                continue
            if not [*self._owned(uid)]:
                finalizers = [finalizer for finalizer in metadata["finalizers"] if finalizer != FOREGROUND]
                self.put(kind, {**obj, "metadata": {**metadata, "finalizers": finalizers}})

    def _owned(self, uid: str) -> Iterator[tuple[Kind, Object]]:
        for kind, obj in self._everything():
            if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", ())):
                yield kind, obj

    def _everything(self) -> Iterator[tuple[Kind, Object]]:
        for kind in self.kinds:
            for obj in [*self._objects.get((kind.group, kind.kind), {}).values()]:
                yield kind, obj


def now() -> str:
    """As in metadata."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
