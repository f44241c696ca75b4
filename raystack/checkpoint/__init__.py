"""The folder that training leaves and serving reads. In: a model, its state and where it stands. Out: the
same, checked.

A manifest, written last, lists the SHA-256 of every file; without a valid one there is no checkpoint. Paths
are fsspec URLs.
"""

from raystack.checkpoint.manifest import STATE, FileEntry, Manifest, ranked
from raystack.checkpoint.model import ModelSpec, describe_parameters, read_spec, write_spec
from raystack.checkpoint.store import CONFIG, MODEL, CheckpointStore, Found
from raystack.checkpoint.writer import CheckpointWriter

__all__ = [
    "CONFIG",
    "MODEL",
    "STATE",
    "CheckpointStore",
    "CheckpointWriter",
    "FileEntry",
    "Found",
    "Manifest",
    "ModelSpec",
    "describe_parameters",
    "ranked",
    "read_spec",
    "write_spec",
]
