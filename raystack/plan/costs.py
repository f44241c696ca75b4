"""What a run costs, and what it may cost. In: the config. Out: a CostPlan: rates and limits.

A pod costs its part of a machine, by GPUs or else by cores. The rest of a machine that it holds alone is not
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.pods import WorkerGroup, Workers
from raystack.config.prices import MachinePrice, Prices
from raystack.errors import PlanError, Problem, nearest

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
HOUR_S = 3600.0
HEAD_CPUS = 2.0
"""Cores of a head that does not say them."""
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
    beside: float = 0.0
    """Price per hour of what runs beside the workers: the head, and further groups."""
    currency: str = "USD"
    source: str = ""
    """Where the price is from, e.g. `p5.48xlarge in us-east-1, spot, prices of 2026-11`; then what is beside
    the workers.
    """
    limits: tuple[Limit, ...] = ()
    warn_at: float = 0.8

    def per_hour(self, workers: int) -> float | None:
        """Return the price of the run per hour on so many workers; None if it is not known."""
        return None if self.worker is None else self.beside + self.worker * workers


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
        seconds = pace.steps * pace.step_s
        hours, parts = seconds / HOUR_S, [duration(seconds)]
        parts += [f"{hours * costs.gpus * workers:.2f} GPU-hours"] if costs.gpus else []
        parts += [f"{money(hours * hourly)} {costs.currency}"] if hourly is not None else []
        by = f"for {pace.steps} steps of {pace.step_s:.3g} s, as in {pace.run}"
        rows.append(("estimate", f"{', '.join(parts)} {by}"))
    elif hourly is not None:
        rows.append(("estimate", "not known: no earlier run is found with such workers and this batch"))
    if costs.limits:
        shown = ", ".join(
            f"{limit.amount:g} {costs.currency if limit.unit == 'money' else limit.unit}"
            for limit in costs.limits
        )
        rows.append(("budget", f"{shown}; warns at {costs.warn_at:.0%}"))
    return rows


def trial_rows(costs: CostPlan, workers: int) -> list[tuple[str, str]]:
    """Return the price of a study's trial as rows of a plan; none if it is not known."""
    hourly = costs.per_hour(workers)
    if hourly is None:
        return []
    return [("price", f"{money(hourly)} {costs.currency} per hour of a trial, {costs.source}")]


def money(amount: float) -> str:
    """Return an amount of money as text: `110.08`, or `0.0025`."""
    return f"{amount:.2f}" if amount >= 0.0995 or amount == 0 else f"{amount:.2g}"


def duration(seconds: float) -> str:
    """Return a time as text: `42 s`, `35 min`, `12.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.1f} h"


def plan_costs(config: RunConfig) -> CostPlan:
    """Decide on rates and limits. Raises PlanError for a machine without a price, and idle limits."""
    prices, budget = config.prices, config.budget
    if budget.gpu_hours is not None and not config.resources.gpus_per_worker:
        rule = "it is never reached: workers have no GPU"
        remedy = "set resources.gpus_per_worker, or drop it"
        raise PlanError(Problem("budget.gpu_hours", rule=rule, got=f"{budget.gpu_hours:g}", remedy=remedy))
    worker, source = _worker(config)
    beside, others = _beside(config) if worker is not None else (0.0, [])
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
        beside=beside,
        currency=prices.currency,
        source="; ".join((source, *others)),
        limits=tuple(
            Limit(key, amount, unit) for unit, (key, amount) in limits.items() if amount is not None
        ),
        warn_at=budget.warn_at,
    )


def sent_prices(config: RunConfig, costs: CostPlan) -> Prices:
    """Return the section for a driver elsewhere, which does not know the target: with the prices found."""
    if costs.worker is None:
        return config.prices
    found = {"worker_per_hour": costs.worker, "head_per_hour": costs.beside}
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
    prices, target, resources = config.prices, config.target, config.resources
    if prices.worker_per_hour is not None:
        return prices.worker_per_hour, "prices.worker_per_hour"
    key, machine = "prices.machine", prices.machine
    cpus: float = resources.cpus_per_worker
    if isinstance(target, KubeRay):
        cpus = _cores(target.worker, cpus)
        if machine is None:
            key, machine = "target.worker.node_selector", target.worker.node_selector.get(INSTANCE_TYPE)
    if machine is None or not prices.table:
        return None, ""
    spot = is_spot(config)
    hourly, region = _pod(prices, machine, key, resources.gpus_per_worker, cpus, spot=spot)
    dated = f", prices of {prices.date}" if prices.date is not None else ""
    return hourly, f"{machine} in {region}, {'spot' if spot else 'on demand'}{dated}"


def _cores(pods: Workers, otherwise: float) -> float:
    """Return the cores by which a pod has its part of a machine: all where it has the TPUs of a host."""
    return inf if pods.tpu is not None else (otherwise if pods.cpus is None else pods.cpus)


def _pod(
    prices: Prices, machine: str, key: str, gpus: float, cpus: float, *, spot: bool
) -> tuple[float, str]:
    """Return the price per hour of a pod on a machine, and the region. Raises PlanError if it has none."""
    price, region = found_price(prices, machine, key)
    hourly = price.spot if spot else price.on_demand
    if hourly is None:
        rule, remedy = "has no spot price in prices.table", "add it, or set prices.spot=false"
        raise PlanError(Problem(key, rule=rule, got=machine, remedy=remedy))
    return hourly * part(price, gpus, cpus), region


def _beside(config: RunConfig) -> tuple[float, list[str]]:
    """Return the price per hour of the head and of further groups, and what each is.

    Of a group that the autoscaler sizes its least pods are counted: workers of the run on more of them are
    counted as workers.
    """
    target = config.target
    found = [_head(config)]
    if isinstance(target, KubeRay):
        for name, group in target.groups.items():
            least, most = (
                group.workers if isinstance(group.workers, tuple) else (group.workers, group.workers)
            )
            if pods := least if target.autoscaling.enabled else most:
                found.append(_group(config, name, group, pods))
    return sum(hourly for hourly, _ in found), [text for _, text in found if text]


def _head(config: RunConfig) -> tuple[float, str]:
    """Return the price of the head per hour, which is never on the spot market, and what it is."""
    prices, target = config.prices, config.target
    if prices.head_per_hour is not None:
        return prices.head_per_hour, f"head {money(prices.head_per_hour)}"
    key, machine, cpus = "prices.head", prices.head, inf
    if isinstance(target, KubeRay):
        cpus = HEAD_CPUS if target.head.cpus is None else target.head.cpus
        if machine is None:
            key, machine = "target.head.node_selector", target.head.node_selector.get(INSTANCE_TYPE)
    if machine is not None and prices.table:
        hourly, _ = _pod(prices, machine, key, 0, cpus, spot=False)
        return hourly, f"head on {machine} {money(hourly)}"
    return 0.0, "head not counted" if isinstance(target, KubeRay) else ""


def _group(config: RunConfig, name: str, group: WorkerGroup, pods: int) -> tuple[float, str]:
    """Return the price per hour of a further group's pods, and what they are."""
    prices, resources = config.prices, config.resources
    key = f"target.groups.{name}.node_selector"
    machine = group.node_selector.get(INSTANCE_TYPE) or prices.machine
    if machine is not None and prices.table:
        gpus = resources.gpus_per_worker if group.gpus is None else group.gpus
        cpus = _cores(group, resources.cpus_per_worker)
        spot = group.spot.enabled if group.spot is not None else is_spot(config)
        each, _ = _pod(prices, machine, key, gpus, cpus, spot=spot)
        where = f" on {machine}{' on spot' if spot else ''}"
    elif prices.worker_per_hour is not None:
        each, where = prices.worker_per_hour, ""
    else:
        return 0.0, f"group {name} not counted"
    return pods * each, f"{pods} of group {name}{where} {money(pods * each)}"


def part(price: MachinePrice, gpus: float, cpus: float) -> float:
    """Return the part of a machine that a worker holds, by its GPUs or else by its cores."""
    if gpus and price.gpus:
        return min(1.0, gpus / price.gpus)
    return min(1.0, cpus / price.cpus) if price.cpus is not None and not price.gpus else 1.0
