"""Options that several verbs share, in the same words for all of them."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.verb import argument, option

if TYPE_CHECKING:
    from raystack.launch.remote import ClusterRef
    from raystack.status import JobHandle


def seconds(text: str) -> float:
    """Parse the value of an option: a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be 0 seconds or more (got {text})")
    return value


def count(text: str) -> int:
    """Parse the value of an option: a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"should be 0 or more (got {text})")
    return value


@dataclass(frozen=True, kw_only=True)
class Verbose:
    """Options of all verbs."""

    verbose: bool = option("-v", "--verbose", help="show tracebacks, and Ray's own output")


@dataclass(frozen=True, kw_only=True)
class Json:
    """Options of all verbs that show something."""

    json: bool = option("--json", help="as JSON on stdout; docs/cli.md lists the keys")


@dataclass(frozen=True, kw_only=True)
class Config(Verbose):
    """A config and overrides."""

    words: tuple[str, ...] = argument(
        metavar="config.yaml key=value",
        help="path of the YAML config, then overrides in Hydra's grammar, e.g. training.epochs=3"
        " resources=inline",
        nargs="*",
        default=(),
    )

    @property
    def config(self) -> str:
        """Return the path of the config. ConfigError if it does not come first."""
        if not self.words or "=" in self.words[0]:
            remedy = "raystack VERB config.yaml key=value"
            raise raystack.ConfigError(
                raystack.Problem("config.yaml", rule="the path of a config comes first", remedy=remedy)
            )
        return self.words[0]

    @property
    def overrides(self) -> tuple[str, ...]:
        return self.words[1:]

    @property
    def experiment(self) -> "raystack.Experiment":
        """Return the experiment that was named. ConfigError with every mistake in it."""
        return raystack.Experiment(self.config, *self.overrides)


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Verbose):
    """A Kubernetes cluster and a namespace."""

    namespace: str | None = option(
        "-n",
        "--namespace",
        help="of Kubernetes (that of the context)",
        default=None,
        metavar="NAME",
        group="where",
    )
    context: str | None = option(
        "--context", help="of the kubeconfig (the current one)", default=None, metavar="NAME", group="where"
    )
    kubeconfig: str | None = option(
        "--kubeconfig", help="(KUBECONFIG, or ~/.kube/config)", default=None, metavar="FILE", group="where"
    )

    @property
    def cluster(self) -> "ClusterRef":
        """Return the cluster that the options name."""
        return raystack.ClusterRef(namespace=self.namespace, context=self.context, kubeconfig=self.kubeconfig)


@dataclass(frozen=True, kw_only=True)
class Placed(Kubernetes, Config):
    """A config, and where on Kubernetes it goes: options go before the section `target`."""

    @property
    def experiment(self) -> "raystack.Experiment":
        """Return the experiment that was named, at that place."""
        return self.at_place(super().experiment)

    def at_place(self, experiment: "raystack.Experiment") -> "raystack.Experiment":
        """Return the experiment at the place that the options name.

        Raises ConfigError if its target is not Kubernetes.
        """
        named = {"namespace": self.namespace, "context": self.context, "kubeconfig": self.kubeconfig}
        given = {name: value for name, value in named.items() if value is not None}
        kind = experiment.config.target.kind
        if given and kind != "kuberay":
            raise raystack.ConfigError(
                raystack.Problem(
                    f"--{name}", rule=f"has no effect on target={kind}", got=value, remedy="drop it"
                )
                for name, value in given.items()
            )
        overrides = (f"target.{name}={_quoted(value)}" for name, value in given.items())
        return experiment.override(*overrides) if given else experiment


def _quoted(text: str) -> str:
    """Return a text as a value in Hydra's grammar."""
    return "'" + text.replace("'", "\\'") + "'"


@dataclass(frozen=True, kw_only=True)
class Place(Kubernetes):
    """A Kubernetes cluster, or a Ray cluster."""

    address: str | None = option(
        "--address",
        help="the Ray cluster's dashboard, for job/ID (RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265)",
        default=None,
        metavar="URL",
        group="where",
    )
    token_from: str | None = option(
        "--token-from",
        help="reference to its token: secret:env:NAME or secret:file:/path (what Ray itself finds)",
        default=None,
        metavar="REFERENCE",
        group="where",
    )

    storage: str | None = option(
        "--storage",
        help="experiment.storage, where a run is looked for whose cluster is gone (RAYSTACK_STORAGE, or"
        " ~/raystack)",
        default=None,
        metavar="URL",
        group="where",
    )

    @property
    def cluster(self) -> "ClusterRef":
        """Return the cluster that the options name."""
        return raystack.ClusterRef(
            storage=self.storage,
            address=self.address,
            namespace=self.namespace,
            context=self.context,
            kubeconfig=self.kubeconfig,
            token=self.token_from,
        )


@dataclass(frozen=True, kw_only=True)
class Reference(Place):
    """A reference to something that runs elsewhere."""

    reference: str = argument(
        metavar="KIND/NAME",
        help="rayjob/NAME, rayservice/NAME, raycluster/NAME or raycronjob/NAME in Kubernetes; job/ID on a Ray"
        " cluster",
    )

    @property
    def handle(self) -> "JobHandle":
        """Return the handle of what is named.

        Raises ConfigError if the reference is malformed, or if an option does not apply to it.
        """
        kind = self.reference.partition("/")[0].lower()
        if kind == "job":
            idle = {"--namespace": self.namespace, "--context": self.context, "--kubeconfig": self.kubeconfig}
        else:
            idle = {"--address": self.address, "--token-from": self.token_from}
        for name, value in idle.items():
            if value is not None:
                rule = f"has no effect on {self.reference}"
                raise raystack.ConfigError(raystack.Problem(name, rule=rule, got=value, remedy="drop it"))
        return raystack.find(self.reference, self.cluster)
