"""The messages over gRPC belong to their `.proto` files, and are Triton's."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from raystack.serving.grpc.messages import POOL

FOLDER = Path(__file__).parents[2] / "raystack" / "serving" / "grpc"
THEIRS = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
SERVICE = "inference.GRPCInferenceService"


def test_the_descriptors_are_compiled_from_the_proto_files(tmp_path: Path) -> None:
    compiled = tmp_path / "messages.binpb"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_imports"]
    files = ["inference.proto", "health.proto"]
    subprocess.run([*protoc, f"--descriptor_set_out={compiled}", *files], cwd=FOLDER, check=True)

    def read(path: Path) -> Any:
        return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())

    assert read(FOLDER / "messages.binpb") == read(compiled), "run `make messages`"


def messages(descriptors: Any) -> Iterator[Any]:
    for descriptor in descriptors:
        yield descriptor
        yield from messages(descriptor.nested_types)


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in message.fields
    }


@pytest.mark.parametrize("theirs", THEIRS, ids=lambda file: file.name)
def test_every_field_of_tritons_messages_is_there_with_its_number_and_type(theirs: Any) -> None:
    found = list(messages(theirs.message_types_by_name.values()))
    assert len(found) > 50
    for message in found:
        ours = fields(POOL.FindMessageTypeByName(message.full_name))
        assert {name: ours.get(name) for name in fields(message)} == fields(message), message.full_name


def test_every_enum_of_tritons_is_there_with_its_values() -> None:
    enums = [*model_config_pb2.DESCRIPTOR.enum_types_by_name.values()]
    enums += [
        enum
        for message in messages(model_config_pb2.DESCRIPTOR.message_types_by_name.values())
        for enum in message.enum_types
    ]
    assert len(enums) > 5
    for enum in enums:
        ours = POOL.FindEnumTypeByName(enum.full_name)
        assert {value.name: value.number for value in enum.values}.items() <= {
            value.name: value.number for value in ours.values
        }.items(), enum.full_name


def test_the_service_has_tritons_rpcs_and_no_others() -> None:
    def methods(service: Any) -> set[tuple[Any, ...]]:
        return {
            (
                method.name,
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    theirs = methods(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
    assert methods(POOL.FindServiceByName(SERVICE)) == theirs
