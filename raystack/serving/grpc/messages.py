"""The protocol's messages and services, as classes made of the descriptors beside this file.

`messages.binpb` is compiled from the `.proto` files and not into Python, because code that protoc writes asks
for a protobuf at least as new as the compiler's. The classes are in a descriptor pool of their own: the
default one refuses a second definition of the same messages, and Triton's client brings one.
"""

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from grpc_reflection.v1alpha import reflection_pb2

Message = Any
"""A message of a class that is made at import, whose fields no type checker knows."""
DecodeError = message.DecodeError

POOL = descriptor_pool.DescriptorPool()
"""All that the server's reflection describes."""


def _read() -> None:
    compiled = files(__package__).joinpath("messages.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        POOL.AddSerializedFile(file.SerializeToString())
    POOL.AddSerializedFile(reflection_pb2.DESCRIPTOR.serialized_pb)


_read()


def message_class(name: str) -> Any:
    """Return the class of a message by its full name, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
