"""A graph's steps -> its engine: each model read from where it is, each function imported."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable

from raystack import registry
from raystack.config.graph import Graph, origin
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.serving.engine import Arrays, ModelEngine
from raystack.serving.graph.compute import combination, function
from raystack.serving.graph.engine import GraphEngine, Part, of_step
from raystack.serving.graph.signature import Wired
from raystack.serving.pin import version_of
from raystack.serving.predictor import FREE_SIZES, Predictor, zeros
from raystack.serving.statistics import Statistics


def read_graph(serving: Serving, graph: Graph, tracking: Tracking, device: str) -> tuple[GraphEngine, str]:
    """Read a graph whose models are pinned. Return the name of its version, too: a digest of all steps.

    Raises ConfigError or ServingError, with the step's name, for what cannot be read or does not fit.
    """
    predictors = {name: _read(name, model, serving, tracking, device) for name, model in graph.models.items()}
    wired = Wired(graph, {name: predictor.signature for name, predictor in predictors.items()})
    versions = {
        name: version_of(model) or str(predictors[name].card.step) for name, model in graph.models.items()
    }
    content = json.dumps([graph.model_dump(mode="json"), versions], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    computed: dict[str, Callable[[Arrays], Arrays]] = {
        name: predictor.forward for name, predictor in predictors.items()
    }
    for name, step in graph.steps.items():
        if step.function is not None:
            computed[name] = function(name, step.function, wired.steps[name])
        elif step.combine is not None:
            computed[name] = combination(step)
    batching = serving.batching
    outputs = {name: origin(source) for name, source in graph.outputs.items()}
    taken = Counter([*outputs.values(), *(each for own in wired.sources.values() for each in own.values())])
    parts = {}
    for name, signature in wired.steps.items():
        engine = ModelEngine(signature, computed[name], batching.max_size, batching.wait_ms / 1000)
        uncertain = tuple(spec for spec in signature.inputs if wired.uncertain(name, spec))
        version, sources = versions.get(name, digest), wired.sources[name]
        shared = frozenset(each for each, source in sources.items() if taken[source] > 1)
        parts[name] = Part(name, version, engine, sources, uncertain, shared, Statistics())
    return GraphEngine(wired, parts, outputs), digest


async def accepted(engine: GraphEngine) -> int:
    """Return a size for the free dimensions of the inputs that all steps take, after a prediction with it.

    Raises the errors of the steps.
    """
    for free in FREE_SIZES:
        try:
            await engine.predict(blank(engine, 1, free), 1)
            return free
        except Exception:  # any step's
            if free == FREE_SIZES[-1]:
                raise
    raise AssertionError


def blank(engine: GraphEngine, size: int, free: int) -> Arrays:
    """Return inputs of `size` samples of zeros."""
    return {spec.name: zeros(spec, free).repeat(size, 0) for spec in engine.signature.inputs}


def _read(name: str, model: str, serving: Serving, tracking: Tracking, device: str) -> Predictor:
    try:
        return Predictor.read(
            registry.resolve(model, tracking),
            device,
            serving.threads,
            precision=serving.precision,
            compiled=serving.compile,
            verify=serving.verify,
        )
    except (ConfigError, ServingError) as error:
        raise type(error)(of_step(name, error)) from error
