"""The folder that training leaves and serving reads. In: a model, its state and where it stands. Out: the same, checked.

A manifest, written last, lists the SHA-256 of every file; without a valid one there is no checkpoint. Paths are fsspec URLs.
"""

from raystack.checkpoint.manifest import Manifest, ranked
from raystack.checkpoint.model import ModelCard, read_card, read_model, write_model
from raystack.checkpoint.store import CONFIG, MODEL, STATE, Found, Store

__all__ = ["CONFIG", "MODEL", "STATE", "Found", "Manifest", "ModelCard", "Store", "ranked", "read_card", "read_model", "write_model"]
