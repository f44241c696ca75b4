"""What is asked of the server and its models besides predictions."""

from collections.abc import Callable, Mapping
from typing import Any

from raystack.errors import Problem
from raystack.serving import description
from raystack.serving.protocol import RequestError, rest
from raystack.serving.rest.response import Response, answer
from raystack.serving.rest.routes import Route
from raystack.serving.server import Server


class Management:
    """Answers about one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reads: Mapping[str, Callable[[Route], Response]] = {
            "alive": lambda route: answer({"status": "alive"}),
            "server": lambda route: answer(description.server()),
            "live": lambda route: answer({"live": server.live}, 200 if server.live else 503),
            "server ready": lambda route: answer({"ready": server.ready}, 200 if server.ready else 503),
            "models": lambda route: answer({"models": server.names}),
            "metadata": self._metadata,
            "ready": self._ready,
            "config": self._config,
            "stats": self._stats,
            "trace": lambda route: answer(server.trace_settings.get(self._name(route))),
            "logging": lambda route: answer(server.log_settings.get()),
            "v1 status": self._v1_status,
        }

    def get(self, route: Route) -> Response:
        """Answer a GET. Raises RequestError."""
        return self._reads[route.action](route)

    async def post(self, route: Route, body: bytes) -> Response:
        """Answer a POST with a body that may be empty. Raises RequestError."""
        values = rest.document(body) if body.strip() else {}
        match route.action:
            case "index":
                return self._index(values)
            case "trace":
                return answer(self._server.trace_settings.update(values, self._name(route)))
            case "logging":
                return answer(self._server.log_settings.update(values))
        parameters = values.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise RequestError(Problem("parameters", rule="should be a JSON object"))
        if route.action == "load":
            await self._server.load(route.model, parameters)
        else:
            await self._server.unload(route.model, parameters)
        return Response(200, [], b"")

    def _name(self, route: Route) -> str | None:
        return self._server.model(route.model).name if route.model else None

    def _metadata(self, route: Route) -> Response:
        model = self._server.model(route.model)
        return answer(description.metadata(model, model.version(route.version)))

    def _ready(self, route: Route) -> Response:
        model = self._server.model(route.model)
        ready = model.ready if model.on_demand else model.known(route.version).ready
        return answer({"name": route.model, "ready": ready}, 200 if ready else 503)

    def _config(self, route: Route) -> Response:
        return answer(description.config(self._server.model(route.model).version(route.version)))

    def _stats(self, route: Route) -> Response:
        found = description.statistics(self._server, route.model or None, route.version)
        return answer({"model_stats": found})

    def _index(self, values: Mapping[str, Any]) -> Response:
        ready = values.get("ready", False)
        if not isinstance(ready, bool):
            raise RequestError(Problem("ready", rule="should be true or false"))
        return answer(self._server.index(ready))

    def _v1_status(self, route: Route) -> Response:
        """KServe's fields and TensorFlow Serving's in one."""
        model = self._server.model(route.model)
        chosen = [model.known(route.version)] if route.version else list(model.present.values())
        ready = any(version.ready for version in chosen) if chosen else model.ready
        states = [
            {
                "version": version.contract.version,
                "state": "AVAILABLE" if version.ready else "LOADING" if version.state == "loading" else "END",
                "status": {"error_code": "OK", "error_message": version.reason},
            }
            for version in chosen
        ]
        values = {"name": model.name, "ready": ready, "model_version_status": states}
        return answer(values, 200 if ready else 503)
