"""The plan of a study as rows for people: what is searched, how, and until when."""

from collections.abc import Iterator

from raystack.config.section import Section
from raystack.config.tuning import Bound
from raystack.display.points import duration, value_text
from raystack.plan.space import Dimension
from raystack.plan.tuning import TunePlan

Row = tuple[str, str]


def study_rows(plan: TunePlan) -> list[Row]:
    """Return the rows of the study itself, (what, value), in reading order."""
    tuning = plan.tuning
    return [
        ("study", plan.name),
        *(("objective", f"{each.metric} ({each.mode})") for each in plan.objectives),
        *(("constraint", f"{metric} {_bound(each)}") for metric, each in tuning.constraints.items()),
        *(("space", f"{each.path}: {domain_text(each)}") for each in plan.space),
        ("search", f"{_options(tuning.search)}, seed {plan.seed}"),
        ("scheduler", _options(tuning.scheduler)),
        ("trials", _trials(plan)),
        ("trial", _trial(plan)),
        ("limits", ", ".join(_limits(plan))),
        ("keep", f"checkpoints of the best {tuning.keep}" if tuning.keep > 1 else "the best checkpoint"),
        ("folder", plan.paths.folder),
    ]


def domain_text(dimension: Dimension) -> str:
    """Return what a dimension's values are, in a few words."""
    if dimension.choices:
        text = " or ".join(map(value_text, dimension.choices))
    elif dimension.kind == "normal":
        text = f"normal, mean {dimension.low:g}, sd {dimension.high:g}"
    else:
        text = f"{dimension.low:g} to {dimension.high:g}"
        text += f" by {dimension.step:g}" if dimension.step is not None else ""
        text += ", whole" if dimension.integer and dimension.step is None else ""
        text += ", uniform in its logarithm" if dimension.log else ""
    conditions = [f"{path} is {' or '.join(map(value_text, values))}" for path, values in dimension.when]
    return f"{text}, when {' and '.join(conditions)}" if conditions else text


def _bound(bound: Bound) -> str:
    texts = [("at least", bound.min), ("at most", bound.max)]
    return " and ".join(f"{word} {number:g}" for word, number in texts if number is not None)


def _options(section: Section) -> str:
    """Return the kind and what is set of its options."""
    values = section.model_dump(mode="json", exclude={"kind"})
    given = [
        f"{name} {value_text(value)}" for name, value in values.items() if value is not None and value != []
    ]
    return ", ".join([str(getattr(section, "kind")), *given])  # noqa: B009 - the sections of a union


def _trials(plan: TunePlan) -> str:
    tuning = plan.tuning
    at_once = f"{tuning.parallel} at a time" if tuning.parallel else "as many at a time as the resources hold"
    parts = [f"{plan.trials}", at_once]
    if tuning.points:
        parts.append(f"{len(tuning.points)} known-good first")
    if (warm := tuning.warm_start) is not None:
        parts.append(f"after what study {warm.study} or MLflow experiment {warm.mlflow} found")
    return ", ".join(parts)


def _trial(plan: TunePlan) -> str:
    workers = plan.workers
    each = ", ".join(f"{amount:g} {name}" for name, amount in workers.resources.items())
    place = "in an actor that trials share" if workers.count == 1 else workers.placement
    count = f"{workers.count} worker{'s' if workers.count > 1 else ''}"
    changed = any(path.partition(".")[0] == "resources" for path in _paths(plan))
    return f"{count}, {each} each, {place}{'; the space changes it' if changed else ''}"


def _paths(plan: TunePlan) -> Iterator[str]:
    for each in plan.space:
        yield from [path for one in each.sections.values() for path in one] if each.sections else [each.path]


def _limits(plan: TunePlan) -> Iterator[str]:
    limits = plan.tuning.limits
    if limits.seconds is not None:
        yield duration(limits.seconds)
    if limits.worker_hours is not None:
        yield f"{limits.worker_hours:g} worker-hours"
    if limits.plateau is not None:
        yield f"{limits.plateau.trials} trials without a new best"
    yield f"more than {limits.failures} failed trials"
