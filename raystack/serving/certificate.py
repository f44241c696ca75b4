"""The files of `serving.tls`, checked before anything listens, and what trusts a server that has them."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raystack.config.access import Tls
from raystack.errors import ConfigError, Problem

_WHERE = "serving.tls"
ANSWER_S = 5.0
"""Seconds in which a server has to begin to answer."""
_STEPS = 10
"""Messages of a handshake, at most."""


def check(tls: Tls) -> None:
    """Raise ConfigError if these files are of no use: one is missing or not in PEM, the key is another's, or
    the certificate has expired.
    """
    missing = list(_unreadable(tls))
    if missing:
        raise ConfigError(missing)
    server = _server(tls)
    try:
        _shaken(trusting(tls), server)
    except ssl.SSLCertVerificationError as error:
        rule = f"would not be accepted: {error.verify_message}"
        raise ConfigError(Problem(f"{_WHERE}.certificate", rule=rule, got=tls.certificate)) from None


def trusting(tls: Tls) -> ssl.SSLContext:
    """Return what trusts this certificate and no other, under whatever name the server is reached."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, "certificate", tls.certificate)
    return context


def covers(tls: Tls, host: str) -> tuple[bool, str | None]:
    """Return whether the certificate is for a host, and the first name that it is for."""
    described = _shaken(trusting(tls), _server(tls))
    names: list[str] = [name for kind, name in described.get("subjectAltName", ()) if "*" not in name]
    return host in names, names[0] if names else None


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a server speaks TLS, whoever it is. One that does not answer speaks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), ANSWER_S) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def _server(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "certificate", tls.certificate)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            rule = "is the key of another certificate"
        else:
            rule = "should have a private key in PEM, without a passphrase"
        raise ConfigError(Problem(f"{_WHERE}.key", rule=rule, got=tls.key)) from None
    if tls.client_ca is not None:
        _load(context, "client_ca", tls.client_ca)
    return context


def _load(context: ssl.SSLContext, key: str, file: str) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        rule = "should have certificates in PEM"
        raise ConfigError(Problem(f"{_WHERE}.{key}", rule=rule, got=file)) from None


def _unreadable(tls: Tls) -> Iterator[Problem]:
    for key, file in tls.model_dump(exclude_none=True).items():
        try:
            Path(file).read_bytes()
        except OSError as error:
            rule = f"cannot be read on this machine: {error.strerror}"
            yield Problem(f"{_WHERE}.{key}", rule=rule, got=file)


def _refuse() -> str:
    return ""  # OpenSSL would ask for a passphrase on the terminal


def _shaken(client: ssl.SSLContext, server: ssl.SSLContext) -> Any:
    """Have a client meet a server in memory; return what it sees of the server's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_STEPS):
        if all([_done(asking.do_handshake), _done(answering.do_handshake)]):
            break
    return asking.getpeercert()


def _done(step: Callable[[], None]) -> bool:
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True
