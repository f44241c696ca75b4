"""What the API does: create, update, patch, apply and delete, with validation, dry runs, ownership and
generations.

In goes what a request asks for, out comes the object, or RefusedError. Warnings are gathered in the Options
of the request.
"""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import yaml

from fake import ownership, patch
from fake.kinds import Kind, Object
from fake.refusal import Cause, RefusedError, exists, invalid, malformed, not_found, stale
from fake.schema import blank, fill, problems, prune
from fake.store import Propagation, Store, now

APPLY, MERGE, STRATEGIC, JSON_PATCH = (
    f"application/{kind}"
    for kind in ("apply-patch+yaml", "merge-patch+json", "strategic-merge-patch+json", "json-patch+json")
)
_KEPT = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
)


@dataclass(frozen=True)
class Options:
    """How a write is meant."""

    manager: str = ""
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)


class Verbs:
    """The verbs that write."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, kind: Kind, name: str, namespace: str) -> Object:
        """The object; RefusedError where there is none."""
        found = self._store.get(kind, name, namespace)
        if found is None:
            raise not_found(kind, name)
        return found

    def create(self, kind: Kind, namespace: str, obj: Object, options: Options) -> Object:
        """POST."""
        with self._store.changed:
            obj = self._addressed(kind, namespace, obj)
            if self._store.get(kind, obj["metadata"]["name"], namespace) is not None:
                raise exists(kind, obj["metadata"]["name"])
            obj = self._settled(kind, self._known(kind, obj, options), None)
            owner = self._manager(kind, options, "Update")
            return self._write(
                kind,
                None,
                ownership.create(kind.schema, {} if kind.custom else blank(kind.schema), obj, owner),
                options,
            )

    def replace(self, kind: Kind, namespace: str, name: str, obj: Object, options: Options) -> Object:
        """PUT."""
        with self._store.changed:
            live = self.find(kind, name, namespace)
            return self._update(kind, live, self._addressed(kind, namespace, obj, name), options)

    def patch(
        self, kind: Kind, namespace: str, name: str, body: bytes, form: str, options: Options
    ) -> tuple[Object, bool]:
        """PATCH of any form. Returns the object, and whether it is new."""
        with self._store.changed:
            if form == APPLY:
                return self._apply(kind, namespace, name, body, options)
            live = self.find(kind, name, namespace)
            config = json.loads(body)
            if form == MERGE:
                new = patch.merge(live, config)
            elif form == JSON_PATCH:
                new = patch.json_patch(live, config)
            elif form == STRATEGIC and not kind.custom:
                new = patch.strategic(kind.schema, live, config)
            else:
                known = ", ".join((JSON_PATCH, MERGE, APPLY))
                why = (
                    "the body of the request was in an unknown format - accepted media types include:"
                    f" {known}"
                )
                raise RefusedError(415, "UnsupportedMediaType", why)
            return self._update(kind, live, self._addressed(kind, namespace, new, name), options), False

    def delete(
        self, kind: Kind, namespace: str, name: str, config: Object, options: Options
    ) -> Object | None:
        """DELETE. Returns what is left of it for now, or None."""
        with self._store.changed:
            live = self.find(kind, name, namespace)
            for key, wanted in (config.get("preconditions") or {}).items():
                if live["metadata"].get(key) != wanted:
                    raise stale(kind, name)
            if options.dry_run:
                return live
            propagation: Propagation = config.get("propagationPolicy") or "Background"
            return self._store.delete(kind, live, propagation)

    def _apply(
        self, kind: Kind, namespace: str, name: str, body: bytes, options: Options
    ) -> tuple[Object, bool]:
        if not options.manager:
            raise invalid(
                kind,
                name,
                [Cause("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")],
            )
        applied = self._addressed(kind, namespace, yaml.safe_load(body), name)
        if applied["metadata"].get("managedFields"):
            raise malformed("metadata.managedFields must be nil")
        _, unknown = prune(kind.schema, applied)
        if unknown:
            which = f"{namespace}/{name}; {kind.api_version}, Kind={kind.kind}"
            raise RefusedError(
                500,
                "",
                f"failed to create typed patch object ({which}): .{unknown[0]}: field not declared in schema",
            )
        applied = _without_status(kind, applied, options)
        live = self._store.get(kind, name, namespace)
        if live is not None:
            self._same_version(kind, live, applied)
        applied["metadata"].pop("resourceVersion", None)
        owner = self._manager(kind, options, "Apply")
        merged = ownership.apply(kind.schema, live, applied, owner, force=options.force)
        fields = merged["metadata"].get("managedFields", [])
        settled = self._settled(kind, merged, live)
        settled["metadata"]["managedFields"] = fields
        return self._write(kind, live, settled, options), live is None

    def _update(self, kind: Kind, live: Object, new: Object, options: Options) -> Object:
        self._same_version(kind, live, new)
        new = self._known(kind, new, options)
        if options.subresource == "status":
            new = {**live, "status": new.get("status", {})}
        elif kind.status:
            new = {**_without(new, "status"), **({"status": live["status"]} if "status" in live else {})}
        kept = {key: live["metadata"][key] for key in _KEPT if key in live["metadata"]}
        new = {**new, "metadata": {**_without(new["metadata"], *_KEPT), **kept}}
        settled = self._settled(kind, new, live)
        owner = self._manager(kind, options, "Update")
        return self._write(kind, live, ownership.update(kind.schema, live, settled, owner), options)

    def _write(self, kind: Kind, live: Object | None, new: Object, options: Options) -> Object:
        """Count the generation up where the spec changed, and store it; what changes nothing is not
        written.
        """
        if live is not None and ownership.untimed(live) == ownership.untimed(new):
            return live
        if _has_generation(kind):
            spec = {key: value for key, value in new.items() if key not in ("metadata", "status")}
            before = (
                None
                if live is None
                else {key: value for key, value in live.items() if key not in ("metadata", "status")}
            )
            generation = 0 if live is None else live["metadata"].get("generation", 1)
            new = {**new, "metadata": {**new["metadata"], "generation": generation + (spec != before)}}
        if options.dry_run:
            born = (
                {"uid": "00000000-0000-4000-8000-000000000000", "creationTimestamp": now()}
                if live is None
                else {}
            )
            return {**new, "metadata": {**born, **new["metadata"]}}
        return self._store.put(kind, new)

    def _addressed(self, kind: Kind, namespace: str, obj: Any, name: str = "") -> Object:
        """The object with its full name, after it was compared with the address that it was sent to."""
        if (
            not isinstance(obj, dict)
            or obj.get("kind") != kind.kind
            or obj.get("apiVersion") != kind.api_version
        ):
            sent = (
                f"{obj.get('apiVersion')}, Kind={obj.get('kind')}"
                if isinstance(obj, dict)
                else type(obj).__name__
            )
            raise malformed(
                f"the object provided is unrecognized (must be {kind.api_version}, Kind={kind.kind}): {sent}"
            )
        metadata = dict(obj.get("metadata") or {})
        if not name and not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        metadata.setdefault("name", name)
        if not metadata["name"]:
            raise invalid(
                kind,
                "",
                [
                    Cause(
                        "metadata.name",
                        "Required value: name or generateName is required",
                        "FieldValueRequired",
                    )
                ],
            )
        if name and metadata["name"] != name:
            raise malformed(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        if kind.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise malformed(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            if self._store.get(self._store.kinds.named("Namespace"), namespace) is None:
                raise not_found(self._store.kinds.named("Namespace"), namespace)
        return {**obj, "metadata": metadata}

    def _known(self, kind: Kind, obj: Object, options: Options) -> Object:
        """The object without fields that nobody knows: refused, warned of or dropped."""
        pruned, unknown = prune(kind.schema, obj)
        told = [f'unknown field "{path}"' for path in unknown]
        if told and options.validation == "Strict":
            what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
            raise malformed(f"{what}: strict decoding error: {', '.join(told)}")
        if options.validation == "Warn":
            options.warnings.extend(told)
        found: Object = _without_status(kind, pruned, options) if options.subresource != "status" else pruned
        return found

    def _settled(self, kind: Kind, obj: Object, live: Object | None) -> Object:
        """The object with its defaults, if it keeps to its schema."""
        obj = fill(kind.schema, obj)
        obj["metadata"] = {key: value for key, value in obj["metadata"].items() if value not in ({}, [])}
        if live is None:
            obj["metadata"] = _without(
                obj["metadata"], "uid", "creationTimestamp", "resourceVersion", "generation", "managedFields"
            )
            if kind.kind == "Pod" and not kind.group:
                obj["status"] = {"phase": "Pending"}
        if kind.kind == "Secret" and "stringData" in obj:
            encoded = {
                key: base64.b64encode(value.encode()).decode() for key, value in obj.pop("stringData").items()
            }
            obj["data"] = {**obj.get("data", {}), **encoded}
        if causes := list(problems(kind.schema, obj, live)):
            raise invalid(kind, obj["metadata"]["name"], causes)
        return obj

    def _same_version(self, kind: Kind, live: Object, new: Object) -> None:
        if new["metadata"].get("resourceVersion") not in (None, "", live["metadata"]["resourceVersion"]):
            raise stale(kind, live["metadata"]["name"])

    def _manager(self, kind: Kind, options: Options, operation: str) -> ownership.Manager:
        return ownership.Manager(
            options.manager or "unknown", operation, kind.api_version, now(), options.subresource
        )


def _has_generation(kind: Kind) -> bool:
    return kind.custom or "spec" in kind.schema.get("properties", {})


def _without(obj: Object, *keys: str) -> Object:
    return {key: value for key, value in obj.items() if key not in keys}


def _without_status(kind: Kind, obj: Object, options: Options) -> Object:
    """What a write may carry: no status, or nothing else."""
    if options.subresource == "status":
        return {
            key: value for key, value in obj.items() if key in ("apiVersion", "kind", "metadata", "status")
        }
    return _without(obj, "status") if kind.status else dict(obj)
