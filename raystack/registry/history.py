"""Finished runs of an MLflow experiment, for a search that begins with their results.

Importing this module imports MLflow, which takes one to two seconds.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow.tracking.client import MlflowClient

from raystack.config.tracking import Tracking
from raystack.errors import LaunchError, PlanError, Problem, nearest
from raystack.registry.command import RejectedError, UnavailableError
from raystack.registry.connection import connect, translated
from raystack.registry.credentials import authorization

PAGE = 1000
"""Runs that are fetched at a time."""


@dataclass(frozen=True)
class FinishedRun:
    """One run: its params as text, and the latest value of each metric."""

    id: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def finished_runs(tracking_uri: str, tracking: Tracking, experiment: str, where: str) -> list[FinishedRun]:
    """Return the experiment's finished runs, the oldest first.

    Raises PlanError at the config's key `where` if there is no such experiment, LaunchError if MLflow does
    not answer.
    """
    try:
        client = connect(tracking_uri, authorization(tracking))
        with translated():
            found = client.get_experiment_by_name(experiment)
            if found is None:
                known = [one.name for one in client.search_experiments(max_results=PAGE)]
                close = nearest(experiment, known)
                remedy = f"did you mean {close}?" if close else f"there are: {', '.join(known) or 'none'}"
                rule = f"MLflow at {tracking_uri} has no such experiment"
                raise PlanError(Problem(where, rule=rule, got=experiment, remedy=remedy))
            return list(_runs(client, str(found.experiment_id)))
    except (UnavailableError, RejectedError) as error:
        rule = f"MLflow does not give out the runs of {experiment}: {error}"
        raise LaunchError(Problem("tracking.uri", rule=rule, got=tracking_uri)) from None


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[FinishedRun]:
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id],
            "attributes.status = 'FINISHED'",
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        for run in page:
            yield FinishedRun(str(run.info.run_id), run.data.params, run.data.metrics)
        token = page.token
        if not token:
            return
