"""Paths of kinds in the API.

In: a kind, or an object. Out: its ApiResource, by the table of known kinds or as the API serves it.
"""

from dataclasses import replace

from raystack.errors import LaunchError, Problem, nearest
from raystack.kuberay.api.kinds import MOVING, RESOURCES, ApiResource, Object
from raystack.kuberay.api.refusal import told
from raystack.kuberay.api.transport import Transport


class Discovery:
    """Resources of one API server, each asked for once."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._moved: dict[str, str] = {}

    def resource(self, kind: str) -> ApiResource:
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
            answer = self._transport.ask("GET", f"/apis/{group}")
            self._moved[group] = (
                known.api if answer.status == 404 else told(answer, group)["preferredVersion"]["groupVersion"]
            )
        return replace(known, api=self._moved[group])

    def resource_of(self, obj: Object) -> ApiResource:
        """Return the resource of a manifest; for a kind not in the table, by API discovery."""
        kind, api = obj["kind"], obj["apiVersion"]
        known = RESOURCES.get(kind)
        if known is not None and known.api == api:
            return known
        answer = self._transport.ask("GET", f"/apis/{api}" if "/" in api else f"/api/{api}")
        served = told(answer, f"{api} {kind}")["resources"] if answer.status != 404 else []
        for each in served:
            if each["kind"] == kind and "/" not in each["name"]:
                return ApiResource(kind, api, each["name"], each["namespaced"])
        raise LaunchError(
            Problem(
                f"{api} {kind}", rule="the cluster does not know that kind", remedy="install what defines it"
            )
        )
