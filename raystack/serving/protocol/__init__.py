"""Open Inference Protocol v2, the protocol of KServe, Triton and MLServer. In: bytes and a Signature. Out:
arrays, and back.

Pure: no Ray, no torch, no server. `contract`, `parameters`, `tensors` and `values` hold what every transport
shares; `rest` is the one over HTTP, `v1` the protocol's predecessor, of TensorFlow Serving.
"""

from raystack.serving.protocol.contract import Contract, InferRequest, OutputRequest
from raystack.serving.protocol.refusal import RequestError

__all__ = ["Contract", "InferRequest", "OutputRequest", "RequestError"]
