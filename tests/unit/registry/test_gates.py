"""The gates: a worse version is refused, a better one passes, and other evaluation data does not help."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from raystack import Experiment
from raystack.checkpoint.evaluation import read_evaluation, why_none
from raystack.errors import ConfigError
from raystack.outcome import Outcome
from raystack.registry.audit import Audit, Move
from raystack.registry.gates.paired import p_value

TRIALS = 150
TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
GATES = "registry.gates={champion: {metric: eval/error, mode: min}, metrics: {eval/error: {max: 5}}}"


def experiment(storage: Path, *overrides: str) -> Experiment:
    named = ["tracking=local", "registry.model=tiny", "registry.alias=champion", GATES]
    return Experiment(TINY, f"experiment.storage={storage}", *named, *overrides)


def train(storage: Path, *overrides: str) -> Outcome:
    return experiment(storage, *overrides).train(lambda event: None)


@pytest.mark.slow
def test_worse_is_refused_better_passes_other_data_is_refused_and_the_history_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(tmp_path, "training.epochs=2")
    assert first.alias == "models:/tiny@champion"
    worse = train(tmp_path, "training.epochs=1", "training.optimizer.lr=1.0e-6")
    assert (worse.model_version, worse.alias) == ("models:/tiny/2", None)
    assert "the gates refuse models:/tiny/2, and champion stays: champion: eval/error is" in worse.notes[0]
    better = train(tmp_path, "training.epochs=30")
    assert better.alias == "models:/tiny@champion"

    import raystack.training.chunks as chunks

    # As if it was evaluated on the first samples alone.
    monkeypatch.setattr(chunks, "SAMPLES", 10)
    other = train(tmp_path, "training.epochs=40")
    assert other.alias is None
    assert "evaluated on other data than models:/tiny/3" in other.notes[0]

    own = experiment(tmp_path)
    with pytest.raises(ConfigError, match=r"--force: .* needs a reason"):
        own.promote("2", force=True)
    with pytest.raises(ConfigError, match=r"^models:/tiny/9: model 'tiny' has no version 9; .* \d; aliases"):
        own.promote("9")
    with pytest.raises(ConfigError, match=r"^registry.alias: names no alias to move; .* --alias"):
        experiment(tmp_path, "registry.alias=null").promote("2")
    with pytest.raises(ConfigError, match=r"^registry.alias: model 'tiny' has no alias 'other'; .* --alias"):
        own.demote(alias="other")
    forced = own.promote("2", force=True, why="the data has changed")
    assert (forced.move.what, forced.move.before, forced.move.version) == ("forced", "3", "2")
    assert own.demote(why="it was a mistake").version == "3"
    assert [(move.what, move.version) for move in own.moves] == [
        ("promoted", "1"),
        ("refused", "2"),
        ("promoted", "3"),
        ("refused", "4"),
        ("forced", "2"),
        ("demoted", "3"),
    ]
    none_yet = "there is no champion yet: no version has the alias champion"
    assert own.moves[0].measured["champion"] == none_yet
    assert own.moves[1].measured["champion"]["against"] == "models:/tiny/1"
    assert own.moves[-1].who


@pytest.mark.slow
def test_each_gate_says_what_it_measured_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import raystack.training.chunks as chunks

    monkeypatch.setattr(chunks, "LIMIT_S", -1.0)
    asked = (
        "{metrics: {eval/none: {min: 1}}, latency_ms: {max: 1000}, size_mb: {max: 0.000001}, card: [owner]}"
    )
    outcome = train(tmp_path, f"registry.gates={asked}")
    assert outcome.alias is None
    assert why_none(Path(str(outcome.checkpoint), "model")) == chunks.TOO_SLOW
    promotion = experiment(tmp_path, f"registry.gates={asked}").promote()
    found = {check.name: (check.passed, check.reason) for check in promotion.report.checks}
    assert found["metrics.eval/none"] == (False, "it was not measured")
    assert found["latency_ms"][0]
    assert not found["size_mb"][0]
    assert found["card.owner"] == (False, "MLflow has no owner of models:/tiny/1")


@pytest.mark.slow
def test_the_record_of_the_evaluation_agrees_with_its_metrics(tmp_path: Path) -> None:
    outcome = train(tmp_path)
    record = read_evaluation(Path(str(outcome.checkpoint), "model"))["eval/"]
    assert record.samples == 37
    values = record.values("error")
    assert values is not None
    assert np.mean(values) == pytest.approx(outcome.metrics["eval/error"], rel=1e-4)


@pytest.mark.parametrize("count", [8, 50])
def test_the_paired_test_keeps_its_error_rate_and_has_power(count: int) -> None:
    random = np.random.default_rng(1)

    def passed(better: float) -> float:
        old = random.normal(0.8, 0.1, (TRIALS, count))
        new = old + random.normal(better, 0.02, old.shape)
        pairs = zip(new.tolist(), old.tolist(), strict=True)
        return float(np.mean([p_value(*pair, 0.0, higher=True) < 0.05 for pair in pairs]))

    assert passed(0.0) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / TRIALS)
    assert passed(0.02) > 0.5


def test_a_version_that_was_promoted_twice_goes_back_to_the_one_before(tmp_path: Path) -> None:
    audit = Audit(str(tmp_path), "tiny")
    for at, (version, before) in enumerate((("1", None), ("2", "1"), ("2", "2"))):
        audit.add(Move(float(at), "promoted", "tiny", "champion", version, before, "me", "it is better"))
    assert audit.version_before("champion", "2") == "1"


def test_the_same_model_again_is_not_better() -> None:
    values: Sequence[float] = [0.5, 0.25, 0.125]
    assert p_value(values, values, 0.0, higher=True) == 1.0
    assert p_value([0.6] * 20, [0.5] * 20, 0.05, higher=True) < 0.05
    assert p_value([0.6] * 20, [0.5] * 20, 0.2, higher=True) > 0.9
    assert p_value([0.4] * 20, [0.5] * 20, 0.0, higher=False) < 0.05
