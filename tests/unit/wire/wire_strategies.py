"""Bytes and texts for the property tests of this folder."""

from __future__ import annotations

from hypothesis import strategies as st

from walsender.wire import decode_text


def octets(min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[bytes]:
    """
    Return any bytes.

    Not `st.binary`: where a strategy draws bytes in one example and a number in the
    next, hypothesis' cache compares the two, and under ``python -bb`` that is an
    error whenever their hashes are equal, as those of b"" and 0 are.
    """
    return st.lists(st.integers(0, 255), min_size=min_size, max_size=max_size).map(bytes)


strings = octets().map(lambda data: data.replace(b"\0", b""))
"""Bytes that a String of the protocol can hold."""

texts = strings.map(decode_text)
"""The same as text."""
