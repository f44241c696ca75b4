"""Signatures of models in the registry: who signs, and whose signatures are trusted."""

from typing import Self

from pydantic import model_validator

from raystack.config.access import PemFile
from raystack.config.secret import Secret
from raystack.config.section import ConflictError, Section


class Sign(Section):
    """Signature of a model's files, in the format of OpenSSF Model Signing."""

    key: Secret | None = None
    """Private key in PEM, without a passphrase, on the curve P-256, P-384 or P-521. It is read where the
    training registers the model.
    """

    pkcs11: Secret | None = None
    """URI of a key in an HSM or KMS that has a PKCS#11 module, `pkcs11:...`, in place of `key`. It is a
    reference since the URI may hold the PIN.
    """

    certificate: PemFile | None = None
    """Certificate of the key, for those who verify by an authority. Not set: they verify by the key."""

    chain: tuple[PemFile, ...] = ()
    """Certificates between `certificate` and its authority."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.key is None) == (self.pkcs11 is None):
            raise ConflictError("exactly one of both has to be set", "key", "pkcs11")
        if self.chain and self.certificate is None:
            raise ConflictError("a chain needs the certificate that it begins with", "chain")
        return self


class Verify(Section):
    """Signature that a model must have to be loaded."""

    key: Secret | None = None
    """Public key in PEM of whoever signs, e.g. `secret:file:/keys/model.pub`. It is read where the model is
    loaded.
    """

    authorities: tuple[PemFile, ...] = ()
    """Certificates, in place of `key`: the signer's has to come from one of them."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.key is None) == (not self.authorities):
            raise ConflictError("exactly one of both has to be set", "key", "authorities")
        return self
