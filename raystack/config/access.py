"""Who may ask a server, and how their connections are kept private."""

import os
from typing import Annotated

from pydantic import AfterValidator

from raystack.config.section import Pattern, Section, Text

TokenName = Annotated[
    str, Pattern(r"^[A-Za-z0-9][\w.-]{0,62}$", "should be letters, digits, '_', '.' and '-', 63 at most")
]


def _file(path: str) -> str:
    if "://" in path:
        raise ValueError("should be the path of a file on the machine that listens")
    return os.path.abspath(os.path.expanduser(path))


PemFile = Annotated[Text, AfterValidator(_file)]
"""Path of a file in PEM, made absolute."""


class Tls(Section):
    """Files for TLS, 1.2 or newer, in PEM. They are read on the machine that listens."""

    certificate: PemFile
    """The server's certificate, followed by those between it and its authority."""

    key: PemFile
    """Private key of the certificate, without a passphrase."""

    client_ca: PemFile | None = None
    """Authorities of clients' certificates. If set, every request but those for health needs one."""
