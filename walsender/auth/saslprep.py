"""
SASLprep (RFC 4013): one spelling for each password.

Source: PostgreSQL, src/common/saslprep.c, pg_saslprep.
"""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final

_PROHIBITED: Final = (
    stringprep.in_table_a1,  # not yet assigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)

# Normalizing takes a time that grows with the square of the length, and nothing else runs meanwhile: three
# seconds for as many combining marks as a password message holds, which anybody may send.
_LONGEST: Final = 1024  # bytes; PostgreSQL 10 to 13 prepared no longer ones either


def prepare_password(password: bytes) -> bytes:
    """
    Return *password* as both sides put it into SCRAM.

    What is no UTF-8, or has a character that may not be in a password, is used as it is: so do
    PostgreSQL and libpq.  So is what is longer than 1024 bytes.
    """
    if password.isascii() or len(password) > _LONGEST:
        return password
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    prepared = _saslprep(text)
    return password if prepared is None else prepared.encode()


def _saslprep(text: str) -> str | None:
    # A character in both tables becomes a space.
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if stringprep.in_table_c12(character) or not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(table(character) for character in prepared for table in _PROHIBITED):
        return None
    if any(map(stringprep.in_table_d1, prepared)):  # written from right to left
        if any(map(stringprep.in_table_d2, prepared)):
            return None
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            return None
    return prepared
