"""Connection strings for others' eyes."""

from __future__ import annotations

import re
from typing import Final

# What libpq calls a secret; a value is a word, or in quotes with backslashes.
_SECRET: Final = re.compile(
    r"\b(password|sslpassword|oauth_client_secret)(\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|(?:[^\s'\\]|\\.)*)",
    re.IGNORECASE | re.DOTALL,
)
_IN_URI: Final = re.compile(r"(?<=://)([^/@:?]*):[^/@]*@")
_IN_QUERY: Final = re.compile(r"\b((?:ssl)?password|oauth_client_secret)=[^&]*", re.IGNORECASE)


def without_password(conninfo: str) -> str:
    """Return a connection string in which secrets are stars."""
    if conninfo.startswith(("postgresql://", "postgres://")):
        return _IN_QUERY.sub(r"\1=********", _IN_URI.sub(r"\1:********@", conninfo))
    return _SECRET.sub(r"\1\2********", conninfo)
