"""Logs of pods: in goes text that a test writes, out comes what `kubectl logs` is sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from fake.kinds import Object
from fake.refusal import malformed
from fake.store import Store

_POLL_S = 1.0


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    tail: int | None = None


@dataclass
class Logs:
    """Texts by namespace, pod, container and whether they are of the container's previous life."""

    store: Store
    _texts: dict[tuple[str, str, str, bool], str] = field(default_factory=dict)

    def write(self, namespace: str, pod: str, container: str, text: str, previous: bool) -> None:
        """Append lines."""
        with self.store.changed:
            key = (namespace, pod, container, previous)
            self._texts[key] = self._texts.get(key, "") + (text if text.endswith("\n") else text + "\n")
            self.store.changed.notify_all()

    def read(self, pod: Object, config: Asked) -> Iterator[str]:
        """The text, and with `follow` what comes until the pod has ended or is gone. RefusedError before the
        first piece if at all.
        """
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        container = self._container(pod, config)
        key = (namespace, name, container, config.previous)
        if key not in self._texts:
            self._refuse(pod, container, config)
        return self._pieces(key, pod["metadata"]["uid"], config)

    def _pieces(self, key: tuple[str, str, str, bool], uid: str, config: Asked) -> Iterator[str]:
        text = self._texts.get(key, "")
        sent = len(text)
        yield (
            text
            if config.tail is None
            else "".join(text.splitlines(keepends=True)[-config.tail :] if config.tail else [])
        )
        while config.follow:
            with self.store.changed:
                ended = self.store.closed or self._ended(key, uid)
                text = self._texts.get(key, "")
                if len(text) == sent and not ended:
                    self.store.changed.wait(_POLL_S)
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
            if ended:
                return

    def _ended(self, key: tuple[str, str, str, bool], uid: str) -> bool:
        namespace, name, _, _ = key
        pod = self.store.get(self.store.kinds.named("Pod"), name, namespace)
        return (
            pod is None
            or pod["metadata"]["uid"] != uid
            or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        )

    def _container(self, pod: Object, config: Asked) -> str:
        spec, name = pod.get("spec", {}), pod["metadata"]["name"]
        main = [container["name"] for container in spec.get("containers", ())]
        known = [*main, *(container["name"] for container in spec.get("initContainers", ()))]
        written = [
            container
            for where, pod_name, container, _ in self._texts
            if (where, pod_name) == (pod["metadata"]["namespace"], name)
        ]
        if not config.container:
            main = main or sorted(set(written))
            if len(main) != 1:
                raise malformed(
                    f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
                )
            return str(main[0])
        if config.container not in (*known, *written):
            raise malformed(f"container {config.container} is not valid for pod {name}")
        return config.container

    def _refuse(self, pod: Object, container: str, config: Asked) -> None:
        """A container that has not started has no log; one that has may have said nothing yet."""
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if config.previous:
            raise malformed(f'previous terminated container "{container}" in pod "{name}" not found')
        states = {state["name"]: state.get("state", {}) for state in status.get("containerStatuses", ())}
        waiting = states.get(container, {}).get("waiting")
        if waiting is not None or (container not in states and status.get("phase", "Pending") == "Pending"):
            reason = (waiting or {}).get("reason", "ContainerCreating")
            trying = (
                f"trying and failing to pull image: {reason}"
                if "Image" in reason
                else f"waiting to start: {reason}"
            )
            raise malformed(f'container "{container}" in pod "{name}" is {trying}')
