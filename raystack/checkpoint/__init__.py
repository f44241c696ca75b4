"""The folder that training writes and serving reads. In: a model and its training state. Out: both, verified.

A manifest, written last, lists the SHA-256 of every file; a folder without a valid one is not a checkpoint.
Paths are fsspec URLs.
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
