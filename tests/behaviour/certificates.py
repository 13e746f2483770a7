"""A CA of the tests' own, and what it vouches for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files of PEM.

    Attributes:
        ca: What clients are to trust.
        certificate: Of a server at 127.0.0.1, with its chain.
    """

    ca: Path
    certificate: Path
    key: Path

    @property
    def trust(self) -> ssl.SSLContext:
        """What judges servers by this CA."""
        return ssl.create_default_context(cafile=self.ca)

    @property
    def settings(self) -> dict[str, Path]:
        """Those of a server."""
        return {"tls_cert": self.certificate, "tls_key": self.key}


def certify(folder: Path) -> Certificates:
    """Make a CA and a server's certificate."""
    authority = trustme.CA()
    issued = authority.create_child_ca().issue_cert("127.0.0.1", "localhost")
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority.cert_pem.write_to_path(str(made.ca))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(made.certificate), append=True)
    issued.private_key_pem.write_to_path(str(made.key))
    return made
