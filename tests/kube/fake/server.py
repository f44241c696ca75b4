"""HTTP: in go requests of kubectl or of a client, out come objects, lists, Tables, watches, logs and Status
objects.

Nothing is decided here: a path becomes a Route, a query becomes Options, and the answer is what Verbs, Store
and Logs say.
"""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import yaml

from fake import discovery, selectors, websocket
from fake.kinds import Kind, Kinds, Object
from fake.logs import Asked, Logs
from fake.refusal import RefusedError, expired, forbidden, malformed, no_path
from fake.store import Change, Store
from fake.table import table
from fake.verbs import Options, Verbs

_WATCH_S = 300.0
_SLICE_S = 1.0


@dataclass(frozen=True)
class Route:
    """What a path is about."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> str:
        """As a role names it: `pods`, `pods/log`."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


def route(kinds: Kinds, path: str) -> Route | None:
    """`/apis/ray.io/v1/namespaces/default/rayjobs/a/status`."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = kinds.at(group, version, rest[0])
    if kind is None or len(rest) > 3:
        return None
    return Route(kind, namespace, *rest[1:])


@dataclass
class Backend:
    """All that a request may touch."""

    token: str | None
    kinds: Kinds = field(default_factory=Kinds)
    requests: list[str] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verbs and resources that are refused."""
    roles: list[Object] | None = None
    """Roles that whoever asks is bound to; None allows everything."""
    served: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)
    drops: int = 0
    """Counted up to end every open watch."""
    store: Store = field(init=False)
    verbs: Verbs = field(init=False)
    logs: Logs = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.kinds)
        self.verbs = Verbs(self.store)
        self.logs = Logs(self.store)

    def permits(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether a request may be made."""
        if (verb, resource) in self.forbidden:
            return False
        return self.roles is None or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for role in self.roles
            if role["kind"] == "ClusterRole" or role["metadata"]["namespace"] == namespace
            for rule in role["rules"]
        )


class Server(ThreadingHTTPServer):
    """Listens on a free local port until it is closed; closing ends every connection."""

    daemon_threads = False

    def __init__(self, backend: Backend) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.backend = backend
        self._open: set[Any] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error; anything else is a defect of the fake, which its end tells
        of.
        """
        error = sys.exception()
        if not isinstance(error, OSError) and error is not None:
            self.backend.failures.append(error)

    def close(self) -> None:
        """Stop accepting, end what is open, wait for its threads."""
        self.shutdown()
        self.backend.store.close()
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    body: bytes
    query: dict[str, str]

    @property
    def backend(self) -> Backend:
        return cast(Server, self.server).backend

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, method: Any) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.backend.requests.append(f"{self.command} {self.path}")
        try:
            if (
                self.backend.token is not None
                and self.headers.get("Authorization") != f"Bearer {self.backend.token}"
            ):
                raise RefusedError(401, "Unauthorized", "Unauthorized")
            if self.command == "GET":
                found = discovery.document(self.backend.kinds, url.path)
                if found is not None:
                    return self._send(200, found)
            if url.path.endswith("/selfsubjectaccessreviews"):
                return self._review()
            where = route(self.backend.kinds, url.path)
            if where is None:
                raise no_path()
            self._allowed(where)
            if "protobuf" in self.headers.get("Content-Type", ""):
                raise RefusedError(
                    415,
                    "UnsupportedMediaType",
                    "the fake cluster reads JSON and YAML; create from a file instead",
                )
            method(where)
        except RefusedError as refused:
            self._send(refused.code, refused.status)
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            unreadable = malformed(f"error decoding the body: {error}")
            self._send(unreadable.code, unreadable.status)

    # Reading

    def _get(self, where: Route) -> None:
        if where.subresource == "log":
            return self._log(where)
        if where.subresource == "portforward":
            return self._forward(where)
        if self.query.get("watch") in ("true", "1"):
            return self._watch(where)
        if where.name:
            if where.subresource not in ("", "status"):
                raise no_path()
            return self._shown(where.kind, self.backend.verbs.find(where.kind, where.name, where.namespace))
        with self.backend.store.changed:
            objects, metadata = self._page(self._selected(where))
        if self._as_table:
            shown = table(
                where.kind,
                objects,
                metadata["resourceVersion"],
                self.query.get("includeObject") or "Metadata",
            )
            return self._send(200, {**shown, "metadata": metadata})
        listed = {
            "kind": f"{where.kind.kind}List",
            "apiVersion": where.kind.api_version,
            "metadata": metadata,
        }
        return self._send(200, {**listed, "items": objects})

    def _page(self, objects: list[Object]) -> tuple[list[Object], Object]:
        """As much of a list as was asked for, and the list's metadata, with a token for the rest: a version
        and a place.
        """
        store, token = self.backend.store, self.query.get("continue", "")
        version, place = (int(part) for part in token.split(".")) if token else (store.version, 0)
        if version < store.oldest:
            raise expired(version, store.oldest)
        end = place + (int(self.query.get("limit") or 0) or len(objects))
        rest = (
            {"continue": f"{version}.{end}", "remainingItemCount": len(objects) - end}
            if end < len(objects)
            else {}
        )
        return objects[place:end], {"resourceVersion": str(version), **rest}

    def _selected(self, where: Route) -> list[Object]:
        matches = self._matcher(where)
        return [obj for obj in self.backend.store.all(where.kind, where.namespace) if matches(obj)]

    def _matcher(self, where: Route) -> selectors.Match:
        labels = selectors.labels(self.query.get("labelSelector", ""))
        fields = selectors.fields(where.kind, self.query.get("fieldSelector", ""))

        def matches(obj: Object) -> bool:
            metadata = obj["metadata"]
            here = where.namespace in ("", metadata.get("namespace", "")) and where.name in (
                "",
                metadata["name"],
            )
            return here and labels(obj) and fields(obj)

        return matches

    def _watch(self, where: Route) -> None:
        matches = self._matcher(where)
        store, started_at = self.backend.store, self.backend.drops
        config = self.query.get("resourceVersion", "")
        initial: list[Object] = []
        with store.changed:
            at = int(config) if config not in ("", "0") else store.version
            streamed = self.query.get("sendInitialEvents") == "true"
            if config in ("", "0") or streamed:
                initial, at = self._selected(where), store.version
        with self._stream("application/json") as send:
            for obj in initial:
                send(self._event(where.kind, "ADDED", obj))
            if streamed:
                send(
                    self._event(
                        where.kind,
                        "BOOKMARK",
                        _bookmark(where.kind, at, {"k8s.io/initial-events-end": "true"}),
                    )
                )
            left = float(self.query.get("timeoutSeconds") or _WATCH_S)
            while left > 0 and not store.closed:
                try:
                    changes = store.changes(at, min(left, _SLICE_S))
                except RefusedError as refused:
                    send(json.dumps({"type": "ERROR", "object": refused.status}) + "\n")
                    return
                if self.backend.drops != started_at:
                    raise ConnectionAbortedError("dropped on request of the test")
                left -= 0 if changes else _SLICE_S
                for change in changes:
                    at = change.version
                    if change.kind == where.kind and (seen := _seen(change, matches)) is not None:
                        send(self._event(where.kind, *seen))

    def _event(self, kind: Kind, what: str, obj: Object) -> str:
        shown = obj
        if self._as_table and what != "BOOKMARK":
            shown = table(
                kind, [obj], obj["metadata"]["resourceVersion"], self.query.get("includeObject") or "Metadata"
            )
        return json.dumps({"type": what, "object": shown}) + "\n"

    def _log(self, where: Route) -> None:
        pod = self.backend.verbs.find(where.kind, where.name, where.namespace)
        tail = self.query.get("tailLines")
        follow, previous = (self.query.get(key) in ("true", "True", "1") for key in ("follow", "previous"))
        config = Asked(self.query.get("container", ""), follow, previous, int(tail) if tail else None)
        pieces = self.backend.logs.read(pod, config)
        with self._stream("text/plain") as send:
            for piece in pieces:
                send(piece)

    def _forward(self, where: Route) -> None:
        self.backend.verbs.find(where.kind, where.name, where.namespace)
        offered = self.headers.get("Sec-WebSocket-Protocol", "")
        if self.headers.get("Upgrade", "").lower() != "websocket" or websocket.PROTOCOL not in offered:
            raise malformed(
                f"unable to upgrade: the fake cluster forwards over a websocket with {websocket.PROTOCOL}"
                " only"
            )
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", websocket.accept(self.headers["Sec-WebSocket-Key"]))
        self.send_header("Sec-WebSocket-Protocol", websocket.PROTOCOL)
        self.end_headers()
        self.close_connection = True
        ports = [int(port) for port in self.query["ports"].split(",")]
        served = self.backend.served.get((where.namespace, where.name), {})
        websocket.forward(cast(Any, self.rfile), cast(Any, self.wfile), ports, served)

    # Writing

    def _post(self, where: Route) -> None:
        if where.name:
            raise no_path()
        options = self._options(where)
        self._shown(
            where.kind,
            self.backend.verbs.create(where.kind, where.namespace, json.loads(self.body), options),
            options,
            201,
        )

    def _put(self, where: Route) -> None:
        options = self._options(where)
        obj = self.backend.verbs.replace(
            where.kind, where.namespace, where.name, json.loads(self.body), options
        )
        self._shown(where.kind, obj, options)

    def _patch(self, where: Route) -> None:
        options = self._options(where)
        form = self.headers.get_content_type()
        obj, new = self.backend.verbs.patch(where.kind, where.namespace, where.name, self.body, form, options)
        self._shown(where.kind, obj, options, 201 if new else 200)

    def _delete(self, where: Route) -> None:
        options, config = self._options(where), json.loads(self.body or b"{}")
        if "propagationPolicy" in self.query:
            config["propagationPolicy"] = self.query["propagationPolicy"]
        if not where.name:
            for obj in self._selected(where):
                metadata = obj["metadata"]
                self.backend.verbs.delete(
                    where.kind, metadata.get("namespace", ""), metadata["name"], config, options
                )
            return self._send(200, _success(where.kind, "", ""))
        uid = self.backend.verbs.find(where.kind, where.name, where.namespace)["metadata"]["uid"]
        left = self.backend.verbs.delete(where.kind, where.namespace, where.name, config, options)
        return self._send(200, _success(where.kind, where.name, uid) if left is None else left)

    def _options(self, where: Route) -> Options:
        if where.subresource not in ("", "status"):
            raise no_path()
        agent = self.headers.get("User-Agent", "unknown").partition("/")[0]
        dry_run = "dryRun" in self.query or "All" in json.loads(
            self.body if self.command == "DELETE" and self.body else b"{}"
        ).get("dryRun", ())
        return Options(
            manager=self.query.get("fieldManager")
            or ("" if "apply-patch" in self.headers.get("Content-Type", "") else agent),
            dry_run=dry_run,
            validation=self.query.get("fieldValidation") or "Warn",
            force=self.query.get("force") in ("true", "1"),
            subresource=where.subresource,
        )

    def _allowed(self, where: Route) -> None:
        verb = {"POST": "create", "PUT": "update"}.get(self.command, self.command.lower())
        if verb == "get" and not where.name:
            verb = "watch" if self.query.get("watch") in ("true", "1") else "list"
        applies = "apply-patch" in self.headers.get("Content-Type", "")
        creates = applies and self.backend.store.get(where.kind, where.name, where.namespace) is None
        for each in (verb, "create") if creates else (verb,):
            if not self.backend.permits(each, where.kind.group, where.resource, where.namespace):
                raise forbidden(where.kind, where.name, each, where.resource, where.namespace)

    def _review(self) -> None:
        config = json.loads(self.body)
        about = config.get("spec", {}).get("resourceAttributes", {})
        resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
        place = about.get("namespace") or ""
        allowed = self.backend.permits(about.get("verb"), about.get("group") or "", resource, place)
        self._send(201, {**config, "status": {"allowed": allowed}})

    # Sending

    @property
    def _as_table(self) -> bool:
        return "as=Table" in self.headers.get("Accept", "").partition(",")[0]

    def _shown(self, kind: Kind, obj: Object, options: Options | None = None, code: int = 200) -> None:
        version = obj["metadata"].get("resourceVersion", "")
        shown = (
            table(kind, [obj], version, self.query.get("includeObject") or "Metadata")
            if self._as_table
            else obj
        )
        self._send(code, shown, options.warnings if options else [])

    def _send(self, code: int, body: Object | str, warnings: list[str] = []) -> None:  # noqa: B006 - it is only read
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for warning in warnings:
            escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
            self.send_header("Warning", f'299 - "{escaped}"')
        self.end_headers()
        self.wfile.write(data)

    @contextlib.contextmanager
    def _stream(self, form: str) -> Iterator[Any]:
        """A response without a known length. A client that goes away ends it."""
        self.send_response(200)
        self.send_header("Content-Type", form)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(text: str) -> None:
            data = text.encode()
            if data:
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        yield send
        self.wfile.write(b"0\r\n\r\n")


def _seen(change: Change, matches: selectors.Match) -> tuple[str, Object] | None:
    """What a watch with a selector sees of a change."""
    before = change.before is not None and matches(change.before)
    after = change.after is not None and matches(change.after)
    if after:
        assert change.after is not None
        return ("MODIFIED" if before else "ADDED"), change.after
    if before:
        assert change.before is not None
        return "DELETED", change.after or change.before
    return None


def _bookmark(kind: Kind, version: int, annotations: dict[str, str]) -> Object:
    metadata = {"resourceVersion": str(version), "annotations": annotations, "creationTimestamp": None}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


def _success(kind: Kind, name: str, uid: str) -> Object:
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
