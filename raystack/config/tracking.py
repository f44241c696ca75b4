"""The tracking section: MLflow, its address and credentials, and what records beside it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, PositiveFloat, model_validator

from raystack.config.experiment import Url
from raystack.config.secret import Secret, no_password
from raystack.config.section import ConflictError, Section, Text


class TensorBoard(Section):
    """Recording as TensorBoard's event files. Needs the extra `tensorboard`."""

    folder: Url | None = None
    """Folder or fsspec URL that holds a folder per experiment, and in it one per run. Not set: `tensorboard/`
    in `experiment.storage`.
    """


class WandB(Section):
    """Recording in Weights & Biases. Needs the extra `wandb`."""

    project: Text | None = None
    """Project of the runs. Not set: the experiment's name."""

    entity: Text | None = None
    """User or team that owns the project. Not set: the default of whoever logs in."""

    group: Text | None = None
    """Group of the run within the project. Not set: none; the trials of a study have the study's name."""

    mode: Literal["online", "offline"] = "online"
    """`offline` records in `wandb/` in `experiment.storage`, which has to be a local folder, and needs no
    network: `wandb sync` uploads it later.
    """

    api_key: Secret | None = None
    """Reference to the key for `online`. Not set: that of `wandb login` or of WANDB_API_KEY."""

    base_url: Annotated[Text, AfterValidator(no_password)] | None = None
    """URL of a server of your own. Not set: W&B's, or that of `wandb login`."""


class Tracking(Section):
    """Recording of parameters, metrics and models."""

    kind: Literal["mlflow", "off"] = "mlflow"
    """`mlflow`, or `off` to record nothing in MLflow."""

    uri: Annotated[Text, AfterValidator(no_password)] | None = None
    """MLflow tracking URI, e.g. `http://mlflow:5000`; a password goes into `password`. Not set: an SQLite
    store in `experiment.storage`.
    """

    username: Text | None = None
    """User name for the tracking server's basic authentication."""

    password: Secret | None = None
    """Reference to the user's password."""

    token: Secret | None = None
    """Reference to a bearer token; excludes username and password."""

    tensorboard: TensorBoard | None = None
    """TensorBoard, beside MLflow or, with `kind: off`, instead of it."""

    wandb: WandB | None = None
    """Weights & Biases, beside MLflow or, with `kind: off`, instead of it."""

    system_metrics: bool = True
    """Record CPU, memory, disk, network and GPU use of the machine that started the run, in MLflow and W&B.
    """

    flush_s: PositiveFloat = 2.0
    """Seconds between two batches of metrics, which are sent in the background."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise ConflictError(
                "takes a token, or a username and password, not both", "token", "username", "password"
            )
        if (self.username is None) != (self.password is None):
            raise ConflictError("username and password belong together", "username", "password")
        return self
