"""Signed models: what was changed is refused and named, from the registration to the replica."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raystack import Experiment
from raystack.checkpoint.signing import SIGNATURE, sign, verify_signature
from raystack.cli.main import main
from raystack.config.sign import Sign, Verify
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.plan.training import embedded_store

ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
pytest.importorskip("model_signing")

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


def pair(folder: Path, name: str) -> tuple[str, str]:
    """Return references to a new private and its public key."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return f"secret:file:{private}", f"secret:file:{public}"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def resign(folder: Path, key: str) -> None:
    (folder / SIGNATURE).unlink()
    sign([folder], folder, Sign(key=key))


def swap_digest(folder: Path) -> None:
    """Write the digest of a changed file into the signature, which nobody has signed then."""
    signature = folder / SIGNATURE
    content = json.loads(signature.read_text())
    content["dsseEnvelope"]["signatures"][0]["sig"] = "MEUCIQ" + "A" * 90
    signature.write_text(json.dumps(content))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (
        lambda folder: flip(folder / "model.safetensors"),
        "model.safetensors does not have the digest",
    ),
    "in a folder": (lambda folder: flip(folder / "hf" / "vocab"), "hf/vocab does not have the digest"),
    "missing": (lambda folder: (folder / "model.json").unlink(), "model.json: this file was signed and is"),
    "added": (lambda folder: (folder / "code.py").write_text("1"), "code.py: this file is not among those"),
    "hidden": (lambda folder: (folder / ".gitignore").write_text("1"), ".gitignore: this file is not among"),
    "link": (lambda folder: (folder / "more").symlink_to("/etc"), "more: this file is not among those"),
    "unsigned": (lambda folder: (folder / SIGNATURE).unlink(), "model.sig: this model is not signed"),
    "no signature": (lambda folder: (folder / SIGNATURE).write_text("{}"), "model.sig: this is no signature"),
    "forged": (swap_digest, "model.sig: this signature was not made by whom the config trusts"),
}


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Verify]:
    private, public = pair(tmp_path, "key")
    folder = tmp_path / "model"
    (folder / "hf").mkdir(parents=True)
    for name in ("model.safetensors", "model.json", "hf/vocab"):
        (folder / name).write_bytes(name.encode() * 100)
    sign([folder], folder, Sign(key=private))
    return folder, Verify(key=public)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named(signed: tuple[Path, Verify], change: str) -> None:
    folder, trusted = signed
    verify_signature(folder, trusted)
    (folder / "registered_model_meta").write_text("MLflow's own")
    verify_signature(folder, trusted)
    make, says = CHANGES[change]
    make(folder)
    with pytest.raises(ServingError) as raised:
        verify_signature(folder, trusted)
    assert says in str(raised.value)


def test_another_key_is_refused(signed: tuple[Path, Verify], tmp_path: Path) -> None:
    folder, trusted = signed
    resign(folder, pair(tmp_path, "other")[0])
    with pytest.raises(ServingError, match="not made by whom the config trusts"):
        verify_signature(folder, trusted)


def test_keys_that_are_none(signed: tuple[Path, Verify], tmp_path: Path) -> None:
    folder, _ = signed
    (tmp_path / "text").write_text("not a key")
    with pytest.raises(ConfigError, match=r"serving.verify: this is no public key"):
        verify_signature(folder, Verify(key=f"secret:file:{tmp_path / 'text'}"))
    with pytest.raises(ConfigError, match=r"registry.sign.key: the model cannot be signed with it"):
        sign([folder], folder, Sign(key=f"secret:file:{tmp_path / 'text'}"))
    with pytest.raises(ConfigError, match="there is no such file on this machine"):
        verify_signature(folder, Verify(key="secret:file:/nowhere"))


def test_the_verb_says_the_file(
    signed: tuple[Path, Verify], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = signed
    command = ["checkpoint", "verify", str(folder), "--key", str(tmp_path / "key.pub")]
    assert main(command) == 0
    flip(folder / "model.safetensors")
    assert main(command) == 6
    assert "model.safetensors does not have the digest that was signed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_registered_version_is_signed_and_a_flipped_byte_refused_before_it_loads(tmp_path: Path) -> None:
    from raystack import registry
    from raystack.serving.predictor import Predictor

    private, public = pair(tmp_path, "key")
    named = ["tracking=local", "registry.model=tiny", f"registry.sign={{key: '{private}'}}"]
    experiment = Experiment(TINY, f"experiment.storage={tmp_path / 'storage'}", *named)
    outcome = experiment.train(lambda event: None)
    assert outcome.model_version == "models:/tiny/1"
    tracking = Tracking(uri=embedded_store(str(tmp_path / "storage"))[0])
    folder = registry.resolve("models:/tiny/1", tracking)
    assert {"MLmodel", "config.yaml", SIGNATURE} <= {path.name for path in folder.iterdir()}
    Predictor.read(folder, verify=Verify(key=public))
    flip(folder / "MLmodel")
    with pytest.raises(ServingError, match="MLmodel does not have the digest that was signed"):
        Predictor.read(folder, verify=Verify(key=public))


@pytest.mark.slow
def test_a_version_without_a_signature_is_not_made(tmp_path: Path) -> None:
    named = ["tracking=local", "registry.model=tiny", "registry.sign={key: 'secret:file:/nowhere'}"]
    outcome = Experiment(TINY, f"experiment.storage={tmp_path}", *named).train(lambda event: None)
    assert outcome.model_version is None
    assert "there is no such file on this machine" in " ".join(outcome.notes)
