"""A Helm chart: the same manifests, with values for what teams change.

The image, the numbers and sizes of pods and the versions of models are values, and the namespace is the
release's. A job's name has a digest of the values that it runs with, for KubeRay ignores a changed spec.
"""

import re
from collections.abc import Mapping
from typing import Any

from raystack.kuberay.manifest.gitops.objects import ONCE, Bundled, key
from raystack.kuberay.manifest.parts import Manifest
from raystack.kuberay.manifest.text import file_name, to_yaml

SECTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "RayCluster": ("cluster", ("spec",)),
    "RayCronJob": ("cron", ("spec", "jobTemplate", "rayClusterSpec")),
    "RayJob": ("job", ("spec", "rayClusterSpec")),
    "RayService": ("service", ("spec", "rayClusterConfig")),
}
"""Section of the values by kind, and the place of the cluster's spec."""
_KEEP = {"helm.sh/resource-policy": "keep"}
_MODEL = re.compile(r"models:/([^/@\s'\"]+)/\d+")
_REPLICAS = re.compile(r"num_replicas: (\d+)")
_LIMIT = 47
"""Length of a job's name."""


def chart(bundle: Bundled, image: str) -> dict[str, str]:
    """Return Chart.yaml, values.yaml and the templates. `image` is that of most containers."""
    about = {
        "apiVersion": "v2",
        "name": bundle.name,
        "description": f"{bundle.name} on KubeRay",
        "type": "application",
        "version": "0.1.0",
    }
    chart = _Chart(image, bundle.namespace)
    manifests = [
        each for each in bundle.annotated(dict.fromkeys(bundle.kept, _KEEP)) if each["kind"] != "Namespace"
    ]
    templates = {f"templates/{file_name(each)}": chart.template(each) for each in manifests}
    return {"Chart.yaml": to_yaml([about]), "values.yaml": to_yaml([chart.values]), **templates}


class _Chart:
    """Values, and the marks in manifests that become expressions of Helm."""

    def __init__(self, image: str, namespace: str) -> None:
        self.values: dict[str, Any] = {"image": image}
        self._image, self._namespace = image, namespace
        self._marks: dict[str, str] = {}

    def template(self, manifest: Manifest) -> str:
        """Return the manifest as a template, and note its values."""
        changed = self._common(manifest)
        if manifest["kind"] in SECTIONS:
            self._sizes(changed, *SECTIONS[manifest["kind"]])
        if manifest["kind"] in ONCE:
            self._named(changed)
        # Braces of the user's own code are no expressions.
        text = to_yaml([changed]).replace("{{", '{{ "{{" }}')
        return re.sub(r"RAYSTACK\d+VALUE", lambda found: f"{{{{ {self._marks[found[0]]} }}}}", text)

    def _mark(self, expression: str) -> str:
        mark = f"RAYSTACK{len(self._marks)}VALUE"
        self._marks[mark] = expression
        return mark

    def _common(self, value: Any, at: str = "") -> Any:
        """Return the value with the image, the namespace and the models' versions replaced."""
        if isinstance(value, dict):
            return {name: self._common(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._common(inner, at) for inner in value]
        if at == "image" and value == self._image:
            return self._mark(".Values.image | quote")
        if at == "namespace" and value == self._namespace:
            return self._mark(".Release.Namespace")
        if at == "serveConfigV2":
            return self._versions(value)
        if at == "rayjob.yaml":
            # A job that a schedule makes of a text: its sizes stay as they were rendered.
            value = value.replace(f"image: {self._image}\n", f"image: {self._mark('.Values.image')}\n")
            return value.replace(
                f"namespace: {self._namespace}\n", f"namespace: {self._mark('.Release.Namespace')}\n"
            )
        return value

    def _versions(self, text: str) -> str:
        """Return Serve's config with a value for each model that is served in one version."""
        found: dict[str, set[str]] = {}
        for model in _MODEL.finditer(text):
            found.setdefault(model[1], set()).add(model[0])
        for name, versions in found.items():
            if len(versions) == 1:
                (version,) = versions
                self.values.setdefault("models", {})[name] = version
                text = text.replace(version, self._mark(f'index .Values.models "{name}"'))
        return text

    def _sizes(self, manifest: Manifest, section: str, place: tuple[str, ...]) -> None:
        """Replace the sizes and numbers of pods."""
        cluster: Any = manifest
        for step in place:
            cluster = cluster[step]
        own: dict[str, Any] = {"head": {}, "groups": {}}
        self.values[section] = own
        self._resources(cluster["headGroupSpec"], own["head"], f".Values.{section}.head")
        for index, group in enumerate(cluster.get("workerGroupSpecs") or []):
            name = group["groupName"]
            here: dict[str, Any] = {}
            own["groups"][name] = here
            where = f'(index .Values.{section}.groups "{name}")'
            if index or manifest["kind"] == "RayCluster" or "replicas" not in group:
                self._numbers(group, here, where)
            elif manifest["kind"] == "RayService":
                self._replicas(manifest["spec"], group, own)
            self._resources(group, here, where)

    def _numbers(self, group: Any, own: dict[str, Any], where: str) -> None:
        for field in ("replicas", "minReplicas", "maxReplicas"):
            if field in group:
                own[field] = group[field]
                group[field] = self._mark(f"int64 {where}.{field}")

    def _replicas(self, service: Any, group: Any, own: dict[str, Any]) -> None:
        """Replace the number of Serve's replicas and of their pods by one value, if they are one number.

        A pod without a replica never becomes ready, and a replica without a pod never starts. What a job
        needs is in its config as well, so its own number of workers is no value.
        """
        number = group["replicas"]
        if _REPLICAS.findall(service["serveConfigV2"]) != [str(number)]:
            return
        own["replicas"] = number
        mark = self._mark("int64 .Values.service.replicas")
        service["serveConfigV2"] = _REPLICAS.sub(f"num_replicas: {mark}", service["serveConfigV2"])
        for field in ("replicas", "minReplicas", "maxReplicas"):
            group[field] = mark

    def _resources(self, group: Any, own: dict[str, Any], where: str) -> None:
        container = group["template"]["spec"]["containers"][0]
        own["resources"] = container["resources"]
        container["resources"] = self._mark(f"toJson {where}.resources")

    def _named(self, manifest: Manifest) -> None:
        """Give the object that runs once a name by what it runs with."""
        _, name = key(manifest)
        section = SECTIONS.get(manifest["kind"], ("", ()))[0]
        with_sizes = f" .Values.{section}" if section else ""
        stem = name[: _LIMIT - 9].rstrip("-")
        run = f'list "{name}" .Values.image{with_sizes} | toJson | sha256sum | trunc 8'
        manifest["metadata"]["name"] = self._mark(f'printf "{stem}-%s" ({run})')
