"""What a run costs, and what it may cost. In: the config. Out: a CostPlan: rates and limits.

A worker costs its part of a machine, by GPUs or else by cores. The rest of a machine that it holds alone is
not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.prices import MachinePrice, Prices
from raystack.errors import PlanError, Problem, nearest

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
HOUR_S = 3600.0
Unit = Literal["s", "GPU-hours", "money"]


@dataclass(frozen=True)
class Limit:
    """One limit of the budget."""

    key: str
    """Dotted key that sets it."""
    amount: float
    unit: Unit


@dataclass(frozen=True)
class CostPlan:
    """Rates and limits of a run."""

    gpus: float = 0.0
    """GPUs of each worker."""
    worker: float | None = None
    """Price of a worker per hour; None: not known."""
    head: float = 0.0
    """Price of the head per hour."""
    currency: str = "USD"
    source: str = ""
    """Where the price is from, e.g. `p5.48xlarge in us-east-1, spot, prices of 2026-11`."""
    limits: tuple[Limit, ...] = ()
    warn_at: float = 0.8

    def per_hour(self, workers: int) -> float | None:
        """Return the price of the run per hour on so many workers; None if it is not known."""
        return None if self.worker is None else self.head + self.worker * workers


@dataclass(frozen=True)
class Pace:
    """How fast an earlier run of the experiment was."""

    run: str
    step_s: float
    """Seconds of a step, with evaluations and checkpoints."""
    steps: int | None
    """Steps of the run that is planned; None: not known."""


def cost_rows(costs: CostPlan, workers: int, pace: Pace | None = None) -> list[tuple[str, str]]:
    """Return the price, the estimate and the budget as rows of a plan; none if there is neither."""
    hourly, rows = costs.per_hour(workers), []
    if hourly is not None:
        rows.append(("price", f"{money(hourly)} {costs.currency} per hour, {costs.source}"))
    if pace is not None and pace.steps is not None and (hourly is not None or costs.limits):
        hours = pace.steps * pace.step_s / HOUR_S
        parts = [f"{hours:.2f} h"]
        parts += [f"{hours * costs.gpus * workers:.2f} GPU-hours"] if costs.gpus else []
        parts += [f"{money(hours * hourly)} {costs.currency}"] if hourly is not None else []
        by = f"for {pace.steps} steps of {pace.step_s:.3g} s, as in {pace.run}"
        rows.append(("estimate", f"{', '.join(parts)} {by}"))
    elif hourly is not None:
        rows.append(("estimate", "not known: no earlier run with these workers and this batch"))
    if costs.limits:
        shown = ", ".join(
            f"{limit.amount:g} {costs.currency if limit.unit == 'money' else limit.unit}"
            for limit in costs.limits
        )
        rows.append(("budget", f"{shown}; warns at {costs.warn_at:.0%}"))
    return rows


def money(amount: float) -> str:
    """Return an amount of money as text: `110.08`, or `0.0025`."""
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"


def plan_costs(config: RunConfig) -> CostPlan:
    """Decide on rates and limits. Raises PlanError for a machine without a price, and money without one."""
    prices, budget = config.prices, config.budget
    worker, source = _worker(config)
    if budget.money is not None and worker is None:
        rule = "money is counted by the price of a worker, and there is none"
        remedy = f"add prices=eks (or gke, aks) and name prices.machine or the node label {INSTANCE_TYPE}"
        raise PlanError(
            Problem("budget.money", rule=rule, got=f"{budget.money:g}", remedy=f"{remedy}; or drop it")
        )
    limits: Mapping[Unit, tuple[str, float | None]] = {
        "s": ("budget.time_s", budget.time_s),
        "GPU-hours": ("budget.gpu_hours", budget.gpu_hours),
        "money": ("budget.money", budget.money),
    }
    return CostPlan(
        gpus=config.resources.gpus_per_worker,
        worker=worker,
        head=_head(config),
        currency=prices.currency,
        source=source,
        limits=tuple(
            Limit(key, amount, unit) for unit, (key, amount) in limits.items() if amount is not None
        ),
        warn_at=budget.warn_at,
    )


def sent_prices(config: RunConfig, costs: CostPlan) -> Prices:
    """Return the section for a driver elsewhere, which does not know the target: with the prices found."""
    if costs.worker is None:
        return config.prices
    found = {"worker_per_hour": costs.worker, "head_per_hour": costs.head}
    return config.prices.model_copy(update=found)


def found_price(
    prices: Prices, machine: str, key: str, region: str | None = None
) -> tuple[MachinePrice, str]:
    """Return the price of an instance type, and its region. Raises PlanError if the table has none."""
    region = region or prices.region
    having = [name for name, machines in prices.table.items() if machine in machines]
    if region in having or (region is None and len(having) == 1):
        where = region or having[0]
        return prices.table[where][machine], where
    if region is None and having:
        rule, remedy = f"{machine} has a price in several regions", f"set it to one of {', '.join(having)}"
        raise PlanError(Problem("prices.region", rule=rule, remedy=remedy))
    known = sorted({name for machines in prices.table.values() for name in machines})
    close = nearest(machine, known)
    rule = "has no price in prices.table" + (f" for region {region}" if region is not None else "")
    remedy = (
        f"did you mean {close}?" if close and close != machine else "add it, or set prices.worker_per_hour"
    )
    raise PlanError(Problem(key, rule=rule, got=machine, remedy=remedy))


def is_spot(config: RunConfig) -> bool:
    """Return whether workers are paid as spot machines."""
    target = config.target
    own = config.prices.spot
    return own if own is not None else isinstance(target, KubeRay) and target.spot.enabled


def _worker(config: RunConfig) -> tuple[float | None, str]:
    """Return the price of a worker per hour, and where it is from."""
    prices, target = config.prices, config.target
    if prices.worker_per_hour is not None:
        return prices.worker_per_hour, "prices.worker_per_hour"
    key, machine = "prices.machine", prices.machine
    if machine is None and isinstance(target, KubeRay):
        key, machine = "target.worker.node_selector", target.worker.node_selector.get(INSTANCE_TYPE)
    if machine is None or not prices.table:
        return None, ""
    price, region = found_price(prices, machine, key)
    spot = is_spot(config)
    hourly = price.spot if spot else price.on_demand
    if hourly is None:
        rule, remedy = "has no spot price in prices.table", "add it, or set prices.spot=false"
        raise PlanError(Problem(key, rule=rule, got=machine, remedy=remedy))
    dated = f", prices of {prices.date}" if prices.date is not None else ""
    source = f"{machine} in {region}, {'spot' if spot else 'on demand'}{dated}"
    return hourly * part(price, config.resources.gpus_per_worker, config.resources.cpus_per_worker), source


def part(price: MachinePrice, gpus: float, cpus: float) -> float:
    """Return the part of a machine that a worker holds, by its GPUs or else by its cores."""
    if gpus and price.gpus:
        return min(1.0, gpus / price.gpus)
    return min(1.0, cpus / price.cpus) if price.cpus is not None and not price.gpus else 1.0


def _head(config: RunConfig) -> float:
    """Return the price of the head per hour, which is never on the spot market."""
    prices, target = config.prices, config.target
    if prices.head_per_hour is not None:
        return prices.head_per_hour
    key, machine = "prices.head", prices.head
    if machine is None and isinstance(target, KubeRay):
        key, machine = "target.head.node_selector", target.head.node_selector.get(INSTANCE_TYPE)
    return found_price(prices, machine, key)[0].on_demand if machine is not None and prices.table else 0.0
