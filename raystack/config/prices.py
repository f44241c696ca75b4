"""The prices section: what machines cost, by region and instance type."""

from typing import Annotated

from pydantic import Field, PositiveInt

from raystack.config.section import NonNegativeFloat, NonNegativeInt, Pattern, Section, Text


class MachinePrice(Section):
    """Price of a machine for an hour, and what the machine has."""

    on_demand: NonNegativeFloat
    """Price per hour."""

    spot: NonNegativeFloat | None = None
    """Price per hour on the spot market, which changes all the time. Not set: not known."""

    gpus: NonNegativeInt = 0
    """Number of its GPUs. A worker with one of eight costs an eighth of the machine."""

    cpus: PositiveInt | None = None
    """Number of its CPU cores. A worker that has no GPU costs its part of the cores. Not set: a worker costs
    the whole machine.
    """


class Prices(Section):
    """Prices per hour. Nothing is asked of a provider: these are the numbers that count."""

    currency: Text = "USD"
    """Currency of all prices, for people."""

    date: (
        Annotated[str, Pattern(r"^\d{4}-\d{2}(-\d{2})?$", "should be a date as text, e.g. '2026-11'")] | None
    ) = None
    """Day or month of the table, which is shown beside each price."""

    region: Text | None = None
    """Region of the run in the table. Not set: the only region of the table that has the machine."""

    machine: Text | None = None
    """Instance type of the workers. Not set: the node label `node.kubernetes.io/instance-type` that
    `target.worker.node_selector` asks for.
    """

    head: Text | None = None
    """Instance type of the head. Not set: the one in `target.head.node_selector`; without it the head is not
    counted.
    """

    spot: bool | None = None
    """Whether workers are on the spot market. Not set: as `target.spot.enabled` says."""

    table: dict[Text, dict[Text, MachinePrice]] = Field(default={})
    """Prices by region and instance type. The groups `prices=eks`, `prices=gke` and `prices=aks` have list
    prices of their date.
    """

    worker_per_hour: NonNegativeFloat | None = None
    """Price of a worker for an hour, instead of one from the table."""

    head_per_hour: NonNegativeFloat | None = None
    """Price of the head for an hour, instead of one from the table. A driver elsewhere gets that of further
    groups in it, too.
    """
