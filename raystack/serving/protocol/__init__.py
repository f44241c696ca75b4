"""Open Inference Protocol v2, the protocol of KServe, Triton and MLServer. In: bytes and a Signature. Out:
arrays, and back.

Pure: no Ray, no torch, no server. `contract` and `tensors` hold what every transport shares, `rest` is the
one over HTTP.
"""

from raystack.serving.protocol.contract import Contract, InferRequest, OutputRequest, RequestError

__all__ = ["Contract", "InferRequest", "OutputRequest", "RequestError"]
