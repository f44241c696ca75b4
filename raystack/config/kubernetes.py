"""Words of Kubernetes: quantities, and names of objects, labels and resources."""

from typing import Annotated

from pydantic import Field

from raystack.config.section import Pattern, Text

Quantity = Annotated[
    str,
    Pattern(
        r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", "should be a Kubernetes quantity, e.g. 16Gi or 500m"
    ),
]
Amount = Annotated[int, Field(ge=0)] | Quantity
"""A number of devices, or a quantity."""
Name = Annotated[
    str,
    Pattern(
        r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        "should be the name of a Kubernetes object: lower case, digits, dashes and dots",
    ),
]
PartName = Annotated[
    str,
    Pattern(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "should be lower case letters, digits and dashes"),
]
"""Name of a container or a group of workers."""
ResourceName = Annotated[
    str,
    Pattern(
        r"^([a-z0-9.-]+/[A-Za-z0-9._-]+|hugepages-\d+[KMG]i)$",
        "should be a resource of Kubernetes, e.g. vpc.amazonaws.com/efa or hugepages-2Mi",
    ),
]
SecretKey = Annotated[
    str,
    Pattern(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$",
        "should be secret/key: the name of a Kubernetes Secret and a key in it",
    ),
]
Path = Annotated[str, Pattern(r"^/[^:]+$", "should be an absolute path")]
Seconds = Annotated[int, Field(gt=0)]
Labels = dict[Text, str]
