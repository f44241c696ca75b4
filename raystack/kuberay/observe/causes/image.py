"""Causes for which an image cannot be pulled."""

import re

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.causes.containers import Found, image_of, the, waiting_of
from raystack.kuberay.observe.snapshot import Snapshot


def no_image(pod: Object, snapshot: Snapshot, now: float) -> Found:
    """Return the cause if the image cannot be pulled."""
    for container, waiting in waiting_of(pod):
        if waiting.get("reason") not in (
            "ImagePullBackOff",
            "ErrImagePull",
            "InvalidImageName",
            "ErrImageNeverPull",
            "RegistryUnavailable",
        ):
            continue
        image = image_of(pod, container)
        pulls = [
            event
            for event in snapshot.events_of(pod)
            if event.get("reason") == "Failed" and "pull" in event.get("message", "")
        ]
        text = " ".join([waiting.get("message") or "", *(event["message"] for event in pulls)])
        why, remedy = _why_no_image(waiting["reason"], text)
        return f"image {image} of {the(pod)} cannot be pulled: {why}", remedy
    return None


def _why_no_image(reason: str, text: str) -> tuple[str, str]:
    """Return the registry's answer as fixed words: its own text differs between attempts."""
    if reason == "InvalidImageName":
        return "that is no name of an image", "correct target.image"
    if reason == "ErrImageNeverPull":
        return (
            "it is not on the node, and may not be pulled",
            "set target.pull_policy=IfNotPresent, or load it onto the nodes",
        )
    if re.search(r"toomanyrequests|429|rate limit", text, re.I):
        return (
            "the registry limits the rate",
            "name credentials in target.pull_secrets, or use a mirror in target.image",
        )
    if re.search(r"unauthorized|denied|forbidden|401|403|authenticat", text, re.I):
        return (
            "the registry refuses access",
            "correct target.image, or name a Secret with access in target.pull_secrets",
        )
    if re.search(r"no match for platform|no matching manifest", text, re.I):
        return (
            "there is none for the node's architecture",
            "build target.image for it, or choose nodes by node_selector kubernetes.io/arch",
        )
    if re.search(r"not found|manifest unknown|404", text, re.I):
        return "there is no such image", "correct target.image, or push it"
    if re.search(r"no such host|timeout|refused|unreachable|x509|tls", text, re.I):
        return "the registry does not answer", "see that nodes reach it, or use a mirror in target.image"
    return "see the events", "correct target.image or target.pull_secrets"
