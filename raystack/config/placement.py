"""Where pods run: taints, labels of nodes, neighbours, and how pods are spread."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from raystack.config.kubernetes import Labels
from raystack.config.section import ConflictError, Section, Text


class Toleration(Section):
    """A toleration, which lets pods run on nodes with a taint."""

    key: Text | None = None
    """Key of the taint. Not set: all taints."""

    operator: Literal["Exists", "Equal"] = "Exists"
    """`Equal` compares the value of the taint, `Exists` ignores it."""

    value: str | None = None
    """Value of the taint, with operator Equal."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Not set: all effects."""

    seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds that the pod stays after such a taint appeared, with effect NoExecute. Not set: for good."""


class NodeMatch(Section):
    """A condition on the labels of the nodes (node affinity)."""

    key: Text
    """Key of the label."""

    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    """Comparison of the label with `values`."""

    values: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Values of the label."""

    required: bool = True
    """false: a preference, with `weight`."""

    weight: Annotated[int, Field(ge=1, le=100)] = 100
    """Weight of a preference."""

    @model_validator(mode="after")
    def _values(self) -> Self:
        if (self.operator in ("Exists", "DoesNotExist")) == bool(self.values):
            raise ConflictError(
                "Exists and DoesNotExist have no values, the others have", "operator", "values"
            )
        return self


class Neighbour(Section):
    """Pods to run beside, or apart from (pod affinity)."""

    labels: Annotated[Labels, Field(min_length=1)]
    """Labels of those pods."""

    key: Text = "kubernetes.io/hostname"
    """Label of the nodes that says what is beside: the node itself, a zone or a rack."""

    apart: bool = False
    """Run apart from them."""

    required: bool = False
    """Stay pending rather than run elsewhere. false: a preference, with `weight`."""

    weight: Annotated[int, Field(ge=1, le=100)] = 50
    """Weight of a preference."""


class Spread(Section):
    """Even numbers of pods by a label of the nodes (topology spread)."""

    key: Text = "topology.kubernetes.io/zone"
    """Key of the label."""

    skew: PositiveInt = 1
    """Difference that is allowed between two values of the label."""

    required: bool = False
    """Stay pending rather than be uneven."""
