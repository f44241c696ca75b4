"""Good messages over gRPC, each spoiled somewhere."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from raystack.serving.grpc.messages import Message

NASTY: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_STRING: ["", "x", "FP32", "BYTES", "sum", "3", "\0", "ü\n", "\U0001f642" * 5_000],
    FieldDescriptor.TYPE_BYTES: [b"", b"\xff", b"\xff" * 8, bytes(4), b"\x05\0\0\0abc", bytes(100_000)],
    FieldDescriptor.TYPE_BOOL: [True, False],
    FieldDescriptor.TYPE_FLOAT: [0.0, float("nan"), float("inf"), -1e38],
    FieldDescriptor.TYPE_DOUBLE: [0.0, float("nan"), float("-inf"), 1e308],
    FieldDescriptor.TYPE_INT32: [0, -1, 1, 128, 2**31 - 1, -(2**31)],
    FieldDescriptor.TYPE_INT64: [0, -1, 1, 2, 2**31, 2**62, 2**63 - 1, -(2**63)],
    FieldDescriptor.TYPE_UINT32: [0, 1, 256, 2**32 - 1],
    FieldDescriptor.TYPE_UINT64: [0, 1, 2**63, 2**64 - 1],
}
PARAMETERS = [
    "timeout", "priority", "sequence_id", "sequence_start", "classification", "shared_memory_region",
    "binary_data", "triton_enable_empty_final_response", "x" * 3_000,
]  # fmt: skip


def spoil(chance: random.Random, message: Message) -> None:
    """Change one field, somewhere inside."""
    field = chance.choice(message.DESCRIPTOR.fields)
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = chance.choice(PARAMETERS), field.message_type.fields_by_name["value"]
        if value.message_type is not None and key.isascii():
            spoil(chance, getattr(message, name)[key])
    elif field.is_repeated:
        values = getattr(message, name)
        if len(values) and chance.random() < 0.3:
            del values[chance.randrange(len(values))]
        elif field.message_type is not None:
            spoil(chance, chance.choice(values) if len(values) else values.add())
        else:
            values.append(chance.choice(NASTY[field.type]))
    elif field.message_type is not None:
        spoil(chance, getattr(message, name))
    elif field.type in NASTY:
        setattr(message, name, chance.choice(NASTY[field.type]))


def spoiled(chance: random.Random, body: bytes) -> bytes:
    """Change some bytes."""
    changed = bytearray(body)
    at = chance.randrange(len(changed) + 1)
    match chance.randrange(3):
        case 0:
            del changed[at:]
        case 1:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        case _:
            changed[at : at + 1] = chance.randbytes(1)
    return bytes(changed)
