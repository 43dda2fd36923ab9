"""What is stored of a user's password.  Neither kind shows it in its ``repr``."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

_VERIFIER: Final = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{0,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)", re.ASCII
)
_DIGEST_SIZE: Final = 32
_MAX_ITERATIONS: Final = 2**31 - 1

VERIFIER_PREFIX: Final = "SCRAM-SHA-256$"


@dataclass(frozen=True, slots=True, repr=False)
class PlainPassword:
    """
    The password itself.

    :ivar text: as written in the file.
    """

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class ScramVerifier:
    """
    What proves the knowledge of a password without holding it, as ``pg_authid`` stores it.

    :ivar salt: not empty.
    :ivar stored_key: 32 bytes.
    :ivar server_key: 32 bytes.
    """

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def parse(cls, text: str) -> ScramVerifier | None:
        """
        Return the verifier that *text* is, or ``None``.

        Source: PostgreSQL, src/backend/libpq/auth-scram.c, parse_scram_secret.
        """
        match = _VERIFIER.fullmatch(text)
        if match is None or (iterations := int(match[1])) > _MAX_ITERATIONS:
            return None
        try:
            salt, stored_key, server_key = (
                base64.b64decode(part, validate=True) for part in match.groups()[1:]
            )
        except ValueError:
            return None
        if not salt or len(stored_key) != _DIGEST_SIZE or len(server_key) != _DIGEST_SIZE:
            return None
        return cls(iterations, salt, stored_key, server_key)
