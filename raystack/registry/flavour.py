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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.models.utils import _save_example
from mlflow.types import Schema, TensorSpec
from mlflow.utils.environment import _PythonEnv

from raystack import __version__
from raystack.checkpoint.example import read_example
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
    _save_example(model, read_example(folder) or _zeros(config), str(target))
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
            TensorSpec(np.dtype(spec["dtype"]), tuple(spec["shape"]), spec["name"])
            for spec in config.signature[side]
        ]
    )


def _zeros(config: Register) -> dict[str, Any]:
    """One sample; what the signature leaves open has size 1."""
    return {
        spec["name"]: np.zeros([1, *(max(size, 1) for size in spec["shape"][1:])], spec["dtype"])
        for spec in config.signature["inputs"]
    }
