"""How a client learns what the server serves: in go the kinds, out come the documents of /api, /apis and
/openapi/v3.

The OpenAPI documents hold only what kubectl looks up in them: that every kind's PATCH takes fieldValidation
and dryRun.
"""

from fake.kinds import Kind, Kinds, Object

VERSION: Object = {"major": "1", "minor": "37", "gitVersion": "v1.37.0", "platform": "linux/amd64"}

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def document(kinds: Kinds, path: str) -> Object | str | None:
    """The document at a path, or None where there is none."""
    parts = path.strip("/").split("/")
    groups = sorted({kind.group for kind in kinds if kind.group})
    match parts:
        case ["version"]:
            return VERSION
        case ["healthz" | "livez" | "readyz"]:
            return "ok"
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(kinds, group) for group in groups],
            }
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(kinds, group)}
        case ["api", version]:
            return _resources(kinds, "", version)
        case ["apis", group, version]:
            return _resources(kinds, group, version)
        case ["openapi", "v3"]:
            roots = sorted({_root(kind) for kind in kinds})
            return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
        case ["openapi", "v3", *root]:
            return _openapi([kind for kind in kinds if _root(kind) == "/".join(root)])
    return None


def _root(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _group(kinds: Kinds, group: str) -> Object:
    versions = [
        {"groupVersion": f"{group}/{version}", "version": version}
        for version in sorted({k.version for k in kinds if k.group == group})
    ]
    return {"name": group, "versions": versions, "preferredVersion": versions[-1]}


def _resources(kinds: Kinds, group: str, version: str) -> Object | None:
    found = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if not found:
        return None
    resources = []
    for kind in found:
        named = {"singularName": kind.singular, "shortNames": [*kind.short], "categories": [*kind.categories]}
        whole = {"name": kind.plural, "namespaced": kind.namespaced, "kind": kind.kind}
        resources.append({**whole, **named, "verbs": _VERBS})
        if kind.status:
            resources.append(
                {
                    **whole,
                    "singularName": "",
                    "name": f"{kind.plural}/status",
                    "verbs": ["get", "patch", "update"],
                }
            )
        if kind.kind == "Pod":
            resources.append({**whole, "singularName": "", "name": "pods/log", "verbs": ["get"]})
            resources.append(
                {**whole, "singularName": "", "name": "pods/portforward", "verbs": ["create", "get"]}
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": resources,
    }


def _openapi(kinds: list[Kind]) -> Object | None:
    if not kinds:
        return None
    taken = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation", "force")
    ]
    paths = {}
    for kind in kinds:
        where = "/namespaces/{namespace}" if kind.namespaced else ""
        named = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        answer = {"200": {"description": "OK"}}
        patch = {
            "parameters": taken,
            "responses": answer,
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": named,
        }
        paths[f"/{_root(kind)}{where}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": paths}
