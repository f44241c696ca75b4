"""What a gate compares a version with, and when it can tell; on model folders that no training has made."""

import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystack import config as configs
from raystack.checkpoint.evaluation import EvaluatedSet, write_evaluation
from raystack.checkpoint.example import write_example
from raystack.checkpoint.model import CODE, ModelSpec, write_spec
from raystack.checkpoint.signing import sign
from raystack.checkpoint.weights import write_weights
from raystack.config.gates import ChampionGate, Gates
from raystack.config.serving import Loaded
from raystack.config.sign import Sign
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError
from raystack.registry.gates import Check, check
from raystack.registry.gates.compatible import broken
from raystack.registry.gates.paired import DRAWN, least_p, p_value, too_few
from raystack.task import Signature, TensorSpec

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
OFF = Tracking(kind="off")
X, Y = TensorSpec("x", "float32", (-1, 4)), TensorSpec("y", "float32", (-1, 1))
CHAMPION = "registry.gates={champion: {metric: eval/error, mode: min}}"


def model(
    folder: Path, *errors: float, fingerprint: str = "same", outputs: tuple[TensorSpec, ...] = (Y,)
) -> str:
    """Write a model that was evaluated on a chunk for each of `errors`."""
    folder.mkdir()
    spec = ModelSpec("task:Tiny", {}, Signature((X,), outputs), "run", 1, {"eval/error": 0.1})
    write_spec(folder, spec, None)
    chunks = tuple({"error": error} for error in errors)
    write_evaluation(folder, {"eval/": EvaluatedSet(fingerprint, len(chunks), chunks)})
    return str(folder)


def checked(version: str, *overrides: str, served: str | None = None) -> dict[str, Check]:
    """Check a folder beside what a rollout serves."""
    config = configs.load(TINY, overrides)
    beside = None if served is None else Loaded(model=served, verify=config.serving.verify)
    report = check(config, version, OFF, served=beside)
    return {each.name: each for each in report.checks}


def test_a_rollout_compares_with_the_version_that_is_served(tmp_path: Path) -> None:
    old = model(tmp_path / "old", *[0.5] * 6)
    better, worse = model(tmp_path / "better", *[0.4] * 6), model(tmp_path / "worse", *[0.6] * 6)
    narrow = model(tmp_path / "narrow", *[0.4] * 6, outputs=(replace(Y, name="z"),))
    asked = "registry.gates={champion: {metric: eval/error, mode: min}, signature: compatible}"
    assert all(each.passed for each in checked(better, asked, served=old).values())
    assert not checked(worse, asked, served=old)["champion"].passed
    gone = checked(narrow, asked, served=old)["signature"]
    assert (gone.passed, gone.measured) == (
        False,
        {"against": old, "broken": ["output 'y' (float32) is gone"]},
    )


def test_without_an_alias_or_a_served_version_nothing_passes_for_want_of_another(tmp_path: Path) -> None:
    alone = model(tmp_path / "alone", *[0.5] * 6)
    found = checked(alone, "registry.gates={champion: {metric: eval/error}, signature: compatible}")
    said = "there is no version to compare with: set registry.alias"
    assert [(each.passed, each.reason) for each in found.values()] == [(False, said)] * 2


def test_too_few_chunks_are_said_with_what_is_needed(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old", *[0.5] * 4), model(tmp_path / "new", *[0.1] * 4)
    refused = checked(new, CHAMPION, served=old)["champion"]
    assert not refused.passed
    assert refused.reason == (
        "no version can pass: 4 samples in 4 chunks give a p of 0.0625 at least, and alpha is 0.05: "
        "evaluate on 5 samples or more, which make 5 chunks, or set alpha above 0.0625"
    )


@pytest.mark.parametrize("alpha", [0.4, 0.0625, 0.05, 0.01, 0.00011])
def test_the_samples_that_are_said_to_be_needed_are_enough_and_no_less_are(alpha: float) -> None:
    counts = range(1, 20)
    enough = next(count for count in counts if least_p(count) < alpha)
    assert all((too_few(count, count, alpha) is None) == (count >= enough) for count in counts)
    assert f"evaluate on {enough} samples or more" in str(too_few(1, 1, alpha))
    assert f"evaluate on {(enough - 1) * 200 + 1} samples" in str(too_few(1, 200, alpha)), "a stream's chunks"
    if enough <= 12:
        assert p_value([1.0] * enough, [0.0] * enough, 0.0, higher=True) == least_p(enough)


def test_an_alpha_that_no_number_of_samples_allows_is_refused_with_the_config() -> None:
    with pytest.raises(ConfigError, match=r"registry.gates.champion.alpha"):
        configs.load(TINY, ["registry.gates={champion: {metric: eval/error, alpha: 0.0001}}"])
    assert ChampionGate.model_fields["alpha"].metadata[0].gt == pytest.approx(1 / (DRAWN + 1))


def test_an_eval_set_that_is_too_small_is_refused_before_the_training() -> None:
    from raystack.training.chunks import check_chunks
    from raystack.training.data.eval_sets import EvalSet

    gates = Gates(champion=ChampionGate(metric="eval/small/error"))
    sets: list[EvalSet] = [EvalSet(name, list(range(size))) for name, size in (("small", 5), ("large", 1))]
    check_chunks(sets, gates)
    check_chunks(sets, None)
    with pytest.raises(ConfigError, match=r"champion.alpha: no version could pass: 4 samples in 4 chunks"):
        check_chunks([EvalSet("small", list(range(4)))], gates)


def test_why_there_is_no_record_is_said(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old", *[0.5] * 6), model(tmp_path / "new", *[0.4] * 6)
    write_evaluation(tmp_path / "new", {}, "it took too long; use fewer samples")
    reason = checked(new, CHAMPION, served=old)["champion"].reason
    assert reason == f"{new} has no record of its evaluation: it took too long; use fewer samples"
    (tmp_path / "new" / "evaluation.json").unlink()
    assert "train it with registry.gates set" in checked(new, CHAMPION, served=old)["champion"].reason


def test_a_changed_byte_is_refused_and_named_before_any_code_of_the_model_runs(tmp_path: Path) -> None:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(private)
    (tmp_path / "key.pub").write_bytes(public)
    folder, ran = tmp_path / "model", tmp_path / "ran"
    model(folder, *[0.5] * 6)
    write_example(folder, {"x": np.zeros((1, 4), np.float32)})
    write_weights(folder, {})
    _write_code(folder, f"open({str(ran)!r}, 'w').close()")
    asked = f"+serving.verify={{key: 'secret:file:{tmp_path}/key.pub'}}"
    limits = "registry.gates={latency_ms: {max: 1000}, metrics: {eval/error: {max: 1}}}"
    sign([folder], folder, Sign(key=f"secret:file:{tmp_path}/key.pem"))

    found = checked(str(folder), asked, limits)
    assert found["serving.verify"].passed
    assert found["metrics.eval/error"].passed
    assert "there is no 'Tiny'" in found["latency_ms"].reason
    assert ran.exists(), "the latency gate runs code that is as it was signed"
    ran.unlink()

    _write_code(folder, f"open({str(ran)!r}, 'a').close()")
    ((name, refused),) = checked(str(folder), asked, limits).items()
    assert (name, refused.passed, refused.where) == ("serving.verify", False, "serving.verify")
    assert "code.zip does not have the digest that was signed" in refused.reason
    assert not ran.exists()


def _write_code(folder: Path, code: str) -> None:
    with zipfile.ZipFile(folder / CODE, "w") as archive:
        archive.writestr("task.py", code)


def test_a_change_that_breaks_clients_is_named() -> None:
    def found(inputs: tuple[TensorSpec, ...] = (X,), outputs: tuple[TensorSpec, ...] = (Y,)) -> list[str]:
        return list(broken(Signature((X,), (Y, free)), Signature(inputs, (*outputs, *kept))))

    free = TensorSpec("free", "float32", (-1, -1))
    kept: tuple[TensorSpec, ...] = (free,)
    changes: list[tuple[dict[str, Any], list[str]]] = [
        ({}, []),
        ({"inputs": (replace(X, shape=(-1, -1)),)}, []),
        ({"outputs": (Y, replace(Y, name="z"))}, []),
        ({"outputs": (replace(Y, shape=(-1, -1)),)}, ["output 'y' has shape [-1, -1], and had [-1, 1]"]),
        ({"outputs": (replace(Y, dtype="int64"),)}, ["output 'y' is int64, and was float32"]),
        ({"inputs": (replace(X, dtype="float64"),)}, ["input 'x' is float64, and was float32"]),
        ({"inputs": (X, replace(X, name="age"))}, ["input 'age' (float32) is new"]),
        ({"inputs": (replace(X, shape=(-1, 5)),)}, ["input 'x' has shape [-1, 5], and had [-1, 4]"]),
        ({"inputs": ()}, ["input 'x' (float32) is gone"]),
        ({"outputs": ()}, ["output 'y' (float32) is gone"]),
    ]
    for change, said in changes:
        assert found(**change) == said
    kept = (replace(free, shape=(-1, 3)),)
    assert found() == [], "a client that takes any size takes this one"
    kept = (replace(free, shape=(-1,)),)
    assert found() == ["output 'free' has shape [-1], and had [-1, -1]"]


def test_a_metric_that_is_no_number_on_a_chunk_refuses(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old", *[0.5] * 6), model(tmp_path / "new", *[0.4] * 5, math.nan)
    assert "is no number on each part" in checked(new, CHAMPION, served=old)["champion"].reason
