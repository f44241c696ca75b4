"""Forms of names and values in Kubernetes."""

import re

from raystack.kuberay.lint.node import Node

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(rf"{DNS_1123.pattern}(\.{DNS_1123.pattern})*")
PORT_NAME = re.compile(r"(?=[-0-9]*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
ENV_NAME = re.compile(r"[ -<>-~]+")
PLACEHOLDER = re.compile(r"\$\w+|\$\{[^}]*\}")
"""What `envsubst` or Flux puts a value in place of, before the API server sees it."""


def misfit(node: Node, form: re.Pattern[str]) -> bool:
    """Return whether a text is there, and is neither of the form nor known only later."""
    return bool(node.text) and not form.fullmatch(node.text) and not PLACEHOLDER.fullmatch(node.text)


def is_late(node: Node) -> bool:
    """Return whether a value has a placeholder, so that it is known only later."""
    return PLACEHOLDER.search(node.text) is not None
