"""The server's certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from penstock.errors import PenstockError


def read_certificate(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what encrypts the connections of a server: TLS 1.2 or later, HTTP/1.1 inside.

    Args:
        certificate: Its certificate and those between it and its CA, PEM.
        key: Its private key, PEM without a passphrase.

    Raises:
        PenstockError: They cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without an answer to its question OpenSSL would ask for a passphrase at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise PenstockError(
            f"{certificate} and {key} are not a certificate and its key ({_reason(error)}); both are PEM "
            "files, the certificate with those between it and its CA, the key without a passphrase"
        ) from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).replace("_", " ").lower()
    return str(error)
