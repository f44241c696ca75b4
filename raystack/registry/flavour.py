"""What makes a `model/` folder a model of MLflow: its files beside it, as MLflow itself writes them.

MLmodel                       signature, size, and the flavours `raystack` and `python_function`
requirements.txt              what has to be installed to load it
python_env.yaml               the same for MLflow's own virtualenv
input_example.json            a real sample where the training left one, else zeros
serving_input_example.json    the same as the body of a request
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.models.utils import _save_example
from mlflow.types import Schema, TensorSpec
from mlflow.utils.environment import _PythonEnv

from raystack import __version__
from raystack.checkpoint.example import Array, read_example
from raystack.checkpoint.model import CARD
from raystack.registry.command import Register

LOADER = "raystack.serving.pyfunc"
"""The module that MLflow loads a model with; it lies above this room, so it is named and not imported."""

LOADER_CONFIG = {"output": None}
"""What may be set when a model is loaded: MLflow ignores `model_config` with keys that are not here."""

REQUIREMENTS, PYTHON_ENV = "requirements.txt", "python_env.yaml"


def write_flavour(target: Path, mlflow_run_id: str, model_id: str, config: Register) -> None:
    """Write the files into `target`, which exists, for the model folder `config.folder`."""
    folder = Path(config.folder)
    model = Model(
        run_id=mlflow_run_id,
        signature=ModelSignature(inputs=_schema(config, "inputs"), outputs=_schema(config, "outputs")),
        model_id=model_id,
        model_size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )
    model.add_flavor("raystack", entry=config.entry, card=CARD, run_id=config.run_id, step=config.step)
    model.add_flavor(
        "python_function",
        loader_module=LOADER,
        python_version=platform.python_version(),
        env={"virtualenv": PYTHON_ENV},
        config=LOADER_CONFIG,
    )
    _save_example(model, _example(config, read_example(folder)), str(target))
    _PythonEnv.current().to_yaml(target / PYTHON_ENV)
    lines = [
        f"mlflow=={version('mlflow')}",
        f"raystack-ml=={__version__}",
        f"torch=={version('torch').partition('+')[0]}",
    ]
    (target / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    model.save(str(target / "MLmodel"))


def _schema(config: Register, side: str) -> Schema:
    return Schema(
        [
            TensorSpec(np.dtype(_dtype(spec)), tuple(spec["shape"]), spec["name"])
            for spec in config.signature[side]
        ]
    )


def _dtype(spec: Mapping[str, Any]) -> str:
    """The nearest dtype that MLflow and pandas know: they have no bfloat16, and keep texts as objects."""
    dtype: str = spec["dtype"]
    return {"bfloat16": "float32", "bytes": "object"}.get(dtype, dtype)


def _example(config: Register, found: Mapping[str, Array] | None) -> dict[str, Any]:
    """The sample that was found, else zeros; what the signature leaves open has size 1."""
    example = {}
    for spec in config.signature["inputs"]:
        shape = [1, *(max(size, 1) for size in spec["shape"][1:])]
        if found is not None:
            example[spec["name"]] = found[spec["name"]].astype(_dtype(spec))
        elif spec["dtype"] == "bytes":
            example[spec["name"]] = np.full(shape, "", object)
        else:
            example[spec["name"]] = np.zeros(shape, _dtype(spec))
    return example
