"""Statistics of data: the numbers themselves, the bins, and the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from raystack.checkpoint.statistics import (
    COLUMNS,
    PICKED,
    STATISTICS,
    Collector,
    DataStatistics,
    Feature,
    columns,
    read_statistics,
    write_statistics,
)
from raystack.errors import ServingError
from raystack.task import TensorSpec

WIDE = COLUMNS + 1


def test_a_feature_has_the_moments_of_what_is_finite_and_counts_what_is_missing() -> None:
    feature = Feature.of(np.array([1.0, 2.0, 3.0, np.nan, np.inf]))
    assert (feature.count, feature.missing) == (5, 1)
    assert (feature.mean, feature.min, feature.max) == (2.0, 1.0, 3.0)
    assert feature.std == pytest.approx(np.std([1, 2, 3]))
    assert sum(feature.counts) == 5
    assert feature.counts[-2:] == (1, 1), "infinity is above all edges, and NaN apart"


def test_bins_have_as_many_values_each_and_their_own_place_for_what_is_outside() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    feature = Feature.of(values)
    inside = feature.counts[2:-2]
    assert len(inside) == 10
    assert max(inside) - min(inside) <= 2
    assert feature.counts[0] == feature.counts[-2] == feature.counts[-1] == 0
    assert feature.histogram(np.array([-100.0, 100.0, 100.0, np.nan])).tolist() == [1, *[0] * 11, 2, 1]


def test_a_value_that_is_there_often_has_a_bin_of_its_own() -> None:
    feature = Feature.of(np.concatenate([np.zeros(900), np.arange(1.0, 101.0)]))
    assert feature.counts[1] == 900
    constant = Feature.of(np.full(100, 7.0))
    assert constant.histogram(np.array([6.9, 7.0, 7.1])).tolist() == [1, 1, 1, 0]


def test_few_integers_are_counted_one_by_one() -> None:
    feature = Feature.of(np.array([3, 3, 9, 3], np.int64))
    assert (feature.classes, feature.counts) == ((3, 9), (3, 1, 0))
    assert feature.histogram(np.array([9, 8, -1, 10**12])).tolist() == [0, 1, 3]
    assert Feature.of(np.array([True, False, True])).classes == (0, 1)
    assert Feature.of(np.arange(5000)).classes is None


@pytest.mark.parametrize(
    ("spec", "array", "shapes"),
    [
        (TensorSpec("row", "float32", (-1, 3)), np.zeros((5, 3), np.float32), [(5,)] * 3),
        (TensorSpec("label", "int64", (-1,)), np.zeros(5, np.int64), [(5,)]),
        (TensorSpec("image", "uint8", (-1, 20, 20)), np.zeros((5, 20, 20), np.uint8), [(5 * PICKED,)]),
        (TensorSpec("tokens", "int64", (-1, -1)), np.zeros((5, 7), np.int64), [(35,)]),
        (TensorSpec("nothing", "float32", (-1, 0)), np.zeros((5, 0), np.float32), []),
        (
            TensorSpec("wide", "float32", (-1, COLUMNS + 1)),
            np.zeros((2, COLUMNS + 1)),
            [(2 * (COLUMNS + 1),)],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, TensorSpec) else "",
)
def test_a_row_has_features_and_an_image_has_one(
    spec: TensorSpec, array: np.ndarray, shapes: list[tuple[int, ...]]
) -> None:
    assert [each.shape for each in columns(spec, array, np.random.default_rng(0))] == shapes


def test_strings_count_by_their_lengths() -> None:
    texts = np.array([b"a", b"bcd", b""], object)
    (found,) = columns(TensorSpec("text", "bytes", (-1,)), texts, np.random.default_rng(0))
    assert found.tolist() == [1, 3, 0]


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    collector = Collector([TensorSpec("x", "float32", (-1, 2)), TensorSpec("n", "int64", (-1,))])
    for part in range(3):
        collector.add({"x": np.array([[part, np.nan]], np.float32), "n": np.array([part])})
    statistics = DataStatistics("eval_data", 3, collector.describe(), {})
    write_statistics(tmp_path, statistics)
    text = (tmp_path / STATISTICS).read_text()
    assert "NaN" not in text, "any parser reads it"
    assert [feature["mean"] for feature in json.loads(text)["inputs"]["x"]] == [1.0, None]
    read = read_statistics(tmp_path)
    assert repr(read) == repr(statistics), "NaN is not equal to itself, and its text is"


def test_an_older_model_has_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_statistics(tmp_path) is None
    (tmp_path / STATISTICS).write_text('{"format": 7}')
    assert read_statistics(tmp_path) is None, "that of a later raystack keeps no version from being served"
    for text in ("{", "[]", '{"format": 1}'):
        (tmp_path / STATISTICS).write_text(text)
        with pytest.raises(ServingError, match=STATISTICS):
            read_statistics(tmp_path)
