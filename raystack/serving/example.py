"""The command with which a deployment is tried, as its last line says."""

import json
import math
import shlex

from raystack.plan import ServePlan
from raystack.serving.access import Access
from raystack.serving.llm import check
from raystack.serving.startup import on_head_node

EXAMPLE_SIZE = 256
"""Maximum number of values in the example request shown after a deployment."""
_ZEROS = {"BOOL": False, "BYTES": ""}
"""What is no number in the JSON of a sample of zeros."""


def command(plan: ServePlan) -> str:
    """Return a command that asks a model that answers."""
    access = Access.of(plan.serving)
    if plan.serving.kind == "model":
        return _curl(plan.url, access)
    if not on_head_node():
        return access.curl(f"{plan.url}/models")
    return check.example(plan.serving, plan.tracking, plan.url)


def _curl(url: str, access: Access) -> str:
    """Return a curl command that sends one sample of zeros, or only gets the metadata if that is too long."""
    if not on_head_node() or (access.tls is not None and access.tls.client_ca is not None):
        return access.curl(url)
    with access.open(url, timeout=5) as response:
        described = json.load(response)["inputs"]
    shapes = [[1 if size < 0 else size for size in tensor["shape"]] for tensor in described]
    if sum(map(math.prod, shapes)) > EXAMPLE_SIZE:
        return access.curl(url)
    tensors = [
        {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": shape,
            "data": [_ZEROS.get(tensor["datatype"], 0)] * math.prod(shape),
        }
        for tensor, shape in zip(described, shapes, strict=True)
    ]
    return f"{access.curl(f'{url}/infer')} -d {shlex.quote(json.dumps({'inputs': tensors}))}"
