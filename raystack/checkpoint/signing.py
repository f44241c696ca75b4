"""Signatures of model folders, `model.sig`, in the format of OpenSSF Model Signing.

Each file of the folder is signed. Files that are added, missing or changed afterwards are refused, but for
those of UNSIGNED. Importing this module imports neither that library nor Sigstore.
"""

import base64
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from raystack.checkpoint.manifest import sha256
from raystack.config.secret import resolve
from raystack.config.sign import Sign, Verify
from raystack.errors import ConfigError, Problem, ServingError

SIGNATURE = "model.sig"
UNSIGNED = (SIGNATURE, "registered_model_meta")
"""Files of the folder that are not signed: the signature, and what MLflow's own client adds to a copy."""

CAUSES = (ValueError, TypeError, KeyError, OSError, RuntimeError)


def sign(sources: list[Path], target: Path, config: Sign) -> None:
    """Write into `target`, a folder, the signature of what lies in `sources`: files, and contents of folders.

    Of files with one name the last counts. Raises ConfigError if the key or the library is not there or is
    of a kind that cannot sign.
    """
    library = _library("registry.sign")
    signer = library.signing.Config()
    with tempfile.TemporaryDirectory() as scratch, _file(config.key) as key:
        folder = Path(scratch) / "model"
        _together(sources, folder)
        try:
            _with_key(signer, key, config)
            signer.set_hashing_config(_hashing(library, symlinks=True)).sign(folder, target / SIGNATURE)
        except CAUSES as error:
            where = "registry.sign." + ("key" if config.pkcs11 is None else "pkcs11")
            raise ConfigError(Problem(where, rule=f"the model cannot be signed with it: {error}")) from None


def verify_signature(folder: Path, config: Verify, where: str = "serving.verify") -> None:
    """Read each file of the model folder and compare it with its signature.

    Raises ServingError that names the first file that is unsigned, missing or changed, or the signature if
    another key made it; ConfigError if the library or the key of `where` is not there.
    """
    path = folder / SIGNATURE
    if not path.is_file():
        rule, remedy = "this model is not signed", "serve a version that was registered with registry.sign"
        raise ServingError(Problem(str(path), rule=rule, remedy=remedy))
    library = _library(where)
    verifier = library.verifying.Config().set_hashing_config(_hashing(library, symlinks=False))
    with _file(config.key) as key:
        try:
            if key is not None:
                verifier.use_elliptic_key_verifier(public_key=key)
            else:
                verifier.use_certificate_verifier(certificate_chain=config.authorities)
        except CAUSES as error:
            raise ConfigError(Problem(where, rule=f"this is no public key or certificate: {error}")) from None
    try:
        verifier.verify(folder, path)
    except Exception as error:  # the formats and the cryptography have errors of their own
        raise ServingError(_broken(folder, error)) from None


def _broken(folder: Path, error: Exception) -> Problem:
    """Return what is wrong with a folder that the library refuses, which often does not say the file."""
    remedy = "serve another version, or find out who changed this one"
    path = folder / SIGNATURE
    try:
        signed = _signed(path)
    except CAUSES as unread:
        return Problem(str(path), rule=f"this is no signature of a model: {unread!r}", remedy=remedy)
    found = {str(file.relative_to(folder)): file for file in _files(folder)}
    for name in sorted(signed.keys() | found.keys() - set(UNSIGNED)):
        if name not in found:
            return Problem(str(folder / name), rule="this file was signed and is missing", remedy=remedy)
        if name not in signed:
            return Problem(str(found[name]), rule="this file is not among those signed", remedy=remedy)
        if found[name].is_symlink():
            return Problem(str(found[name]), rule="this file should not be a symbolic link", remedy=remedy)
        if sha256(found[name]) != signed[name]:
            rule = f"{name} does not have the digest that was signed"
            return Problem(str(found[name]), rule=rule, remedy=remedy)
    rule = f"this signature was not made by whom the config trusts: {error or type(error).__name__}"
    return Problem(str(path), rule=rule, remedy="serve a version of the right signer, or correct the key")


def _signed(path: Path) -> dict[str, str]:
    """Return the SHA-256 of the files by name as the signature says, whoever made it."""
    payload = json.loads(path.read_text(encoding="utf-8"))["dsseEnvelope"]["payload"]
    resources = json.loads(base64.b64decode(payload))["predicate"]["resources"]
    return {each["name"]: each["digest"] for each in resources}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _together(sources: list[Path], folder: Path) -> None:
    """Fill a folder with links, so that large weights are not copied."""
    for source in sources:
        for file in _files(source) if source.is_dir() else [source]:
            link = folder / (file.relative_to(source) if source.is_dir() else file.name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())


def _hashing(library: Any, *, symlinks: bool) -> Any:
    config = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False).set_allow_symlinks(symlinks)


def _with_key(signer: Any, key: Path | None, config: Sign) -> None:
    keyed: Callable[..., Any]
    if config.pkcs11 is None:
        certified, keyed = (
            partial(signer.use_certificate_signer, private_key=key),
            partial(signer.use_elliptic_key_signer, private_key=key),
        )
    else:
        uri = resolve(config.pkcs11)
        certified, keyed = (
            partial(signer.use_pkcs11_certificate_signer, pkcs11_uri=uri),
            partial(signer.use_pkcs11_signer, pkcs11_uri=uri),
        )
    if config.certificate is None:
        keyed()
    else:
        chain = [Path(path) for path in config.chain]
        certified(signing_certificate=Path(config.certificate), certificate_chain=chain)


@contextmanager
def _file(reference: str | None) -> Iterator[Path | None]:
    """Open a key as a file, which the library wants, that nobody else may read."""
    if reference is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:  # made with mode 0600
        file.write(resolve(reference) + "\n")
        file.flush()
        yield Path(file.name)


def _library(where: str) -> Any:
    try:
        import model_signing  # with Sigstore's parts half a second
    except ImportError as error:
        rule = f"signatures need the package model-signing: {error}"
        raise ConfigError(Problem(where, rule=rule, remedy="pip install 'raystack-ml[sign]'")) from None
    return model_signing
