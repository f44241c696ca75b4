"""What a prediction is divided into, and what cannot be one."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from raystack.cli.verbs.predict import Options
from raystack.config import load
from raystack.errors import ConfigError, PlanError
from raystack.plan import plan_prediction
from raystack.plan.prediction import PredictRequest, divided, rows_per_part

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
REQUEST = PredictRequest(("/data.parquet",), "/out")


@pytest.mark.parametrize(
    ("rows", "groups", "part_rows", "parts"),
    [
        (10, (), 4, [(0, 4), (4, 8), (8, 10)]),
        (10, (), 10, [(0, 10)]),
        (0, (), 4, []),
        (30, (10, 10, 10), 25, [(0, 20), (20, 30)]),
        (30, (10, 10, 10), 10, [(0, 10), (10, 20), (20, 30)]),
        (30, (25, 5), 10, [(0, 10), (10, 20), (20, 30)]),
        (30, (5, 25), 10, [(0, 5), (5, 15), (15, 25), (25, 30)]),
        (6, (0, 3, 0, 3), 3, [(0, 3), (3, 6)]),
    ],
)
def test_parts_have_each_row_once_and_end_with_row_groups_where_they_can(
    rows: int, groups: Sequence[int], part_rows: int, parts: list[tuple[int, int]]
) -> None:
    assert list(divided(rows, groups, part_rows)) == parts


@pytest.mark.parametrize(
    ("rows", "size", "batch", "part_rows"),
    [
        (10, 1_000, 32, 1_024),  # a small input is one part
        (1_000_000, 10**8, 32, 3_936),  # 256 parts, of whole batches
        (10**9, 10**10, 100, 100_000),  # no part has more rows
        (1_000_000, 10**12, 8, 72),  # or more than 64 MiB of files
    ],
)
def test_without_a_setting_the_rows_of_a_part_are_bounded(
    rows: int, size: int, batch: int, part_rows: int
) -> None:
    assert rows_per_part(rows, size, batch) == part_rows


def test_the_workers_are_those_of_the_resources() -> None:
    config = load(TINY, ["serving.model=/model", "resources.workers=[2,5]", "resources.gpus_per_worker=0.25"])
    workers = plan_prediction(config, REQUEST, (), "tiny-1").workers
    assert (workers.inline, workers.least, workers.most, workers.device) == (False, 2, 5, "cuda")
    assert workers.each == {"CPU": 1.0, "GPU": 0.25}
    assert plan_prediction(load(TINY, ["serving.model=/model"]), REQUEST, (), "tiny-1").batch == 32


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("resources=processes2", "resources.launcher: processes of torch's launcher train; predictions are"),
        ("resources.custom={rack: 1}", "resources.workers: inline is the process that was started"),
        ("serving.model=null", "serving.model: there is no model to serve"),
    ],
)
def test_what_cannot_be_is_refused(override: str, says: str) -> None:
    with pytest.raises(PlanError) as raised:
        plan_prediction(load(TINY, ["serving.model=/model", override]), REQUEST, (), "tiny-1")
    assert says in str(raised.value)


def options(**given: object) -> Options:
    """The options of a command."""
    return Options(words=(str(TINY),), inputs=("data.csv",), out="out", **given)  # type: ignore[arg-type]


def test_columns_keys_and_outputs_are_lists_with_commas() -> None:
    request = options(columns=("x=a,b,n=c", "m=d"), keep="id, name", outputs="y,z=last").request
    assert request["columns"] == {"x": ("a", "b"), "n": ("c",), "m": ("d",)}
    assert request["keep"] == ("id", "name")
    assert request["outputs"] == {"y": "y", "z": "last"}
    assert options(keep="").request["keep"] == ()
    assert options().request["keep"] is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"columns": ("a,b",)}, "--columns: should be INPUT=COLUMN"),
        ({"columns": ("x=",)}, "--columns: should be INPUT=COLUMN"),
        ({"outputs": "=a"}, "--outputs: should be OUTPUT or OUTPUT=COLUMN"),
    ],
)
def test_a_malformed_option_is_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options(**given).request  # noqa: B018
    assert says in str(raised.value)


def test_a_pattern_that_the_shell_has_opened_is_told() -> None:
    opened = Options(words=(str(TINY), "b.csv"), inputs=("a.csv",), out="out")
    with pytest.raises(ConfigError, match=r"--in: one --in is one place \(got b\.csv\); quote a pattern"):
        opened.experiment  # noqa: B018
