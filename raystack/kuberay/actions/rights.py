"""What this user may do, by the verbs of the command line.

In: a client, and the kinds of a config's manifests. Out: Checks, one for each group of verbs that needs the
same.
"""

from collections.abc import Iterator
from functools import cache

from raystack.errors import LaunchError
from raystack.kuberay.actions.check import Check
from raystack.kuberay.api.client import Client
from raystack.kuberay.api.kinds import RESOURCES
from raystack.plan.kuberay.access import ACCESS, Access


def rights(client: Client, kinds: frozenset[str] = frozenset()) -> Iterator[Check]:
    """Yield a check for each group of verbs. What only some configs need is asked for their `kinds`."""
    asked = _Asked(client, frozenset(RESOURCES[kind].plural for kind in kinds if kind in RESOURCES))
    for access in ACCESS:
        name = f"rights for {', '.join(access.verbs)}"
        try:
            missing = list(asked.missing(access))
        except LaunchError:
            yield Check(name, None, "not known")
            continue
        if not missing:
            yield Check(name, True, "there")
            continue
        where = "in all namespaces" if access.everywhere else f"in namespace {client.namespace}"
        remedy = f"have the role {access.name} bound to you: raystack render config.yaml --as role"
        # Without rights in the whole cluster the doctor sees less, and all else works.
        ok = None if access.everywhere else False
        yield Check(name, ok, f"may not {'; '.join(missing)} {where}", remedy)


class _Asked:
    """Answers of the API, each asked for once."""

    def __init__(self, client: Client, resources: frozenset[str]) -> None:
        self._resources = resources
        self._serves = cache(client.has)
        self._may = cache(client.may)

    def missing(self, access: Access) -> Iterator[str]:
        """Yield what the rules allow and this user may not do: `create rayjobs`."""
        for rule in access.rules:
            if rule.when not in (None, *self._resources) or (rule.group and not self._serves(rule.group)):
                continue
            for resource in rule.resources:
                refused = [
                    verb
                    for verb in rule.verbs
                    if not self._may(verb, rule.group, resource, everywhere=access.everywhere)
                ]
                if refused:
                    yield f"{', '.join(refused)} {resource}"
