"""The messages of the extended query protocol."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalsenderError
from walsender.wire import ExtendedQuery, FrontendBuffer
from walsender.wire.extended import (
    Bind,
    Close,
    Describe,
    Execute,
    ExtendedMessage,
    Parse,
    decode_extended,
    parameter_description,
)

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
FORMATS = st.lists(st.integers(0, 1), max_size=3).map(tuple)
MESSAGES = st.one_of(
    st.builds(Parse, NAMES, NAMES, st.lists(st.integers(0, (1 << 32) - 1), max_size=3).map(tuple)),
    st.builds(
        Bind,
        NAMES,
        NAMES,
        FORMATS,
        st.lists(st.none() | st.binary(max_size=9), max_size=3).map(tuple),
        FORMATS,
    ),
    st.builds(Describe, st.booleans(), NAMES),
    st.builds(Close, st.booleans(), NAMES),
    st.builds(Execute, NAMES, st.integers(0, (1 << 31) - 1)),
)


def decoded(data: bytes) -> ExtendedMessage:
    """Return the one message in *data*."""
    buffer = FrontendBuffer()
    buffer.receive_data(data)
    message = buffer.next_message()
    assert isinstance(message, ExtendedQuery)
    return decode_extended(message)


class ExtendedTests(SynchronousTestCase):
    """Parse, Bind, Describe, Execute, Close."""

    def test_goldenBytes(self) -> None:
        """As psycopg sends them."""
        for data, message in (
            (  # name "", text, one type: int4
                "50 00000015 00 53454c45435420243100 0001 00000017",
                Parse("", "SELECT $1", (23,)),
            ),
            (  # portal, statement, one format: binary, one value of 4 bytes, one format of results: text
                "42 00000018 00 00 0001 0001 0001 00000004 00000007 0001 0000",
                Bind("", "", (1,), (b"\0\0\0\x07",), (0,)),
            ),
            ("42 00000010 00 00 0000 0001 ffffffff 0000", Bind("", "", (), (None,))),
            ("44 00000006 50 00", Describe(True, "")),
            ("44 00000007 53 6100", Describe(False, "a")),
            ("45 00000009 00 00000002", Execute("", 2)),
            ("43 00000007 53 6100", Close(False, "a")),
        ):
            self.assertEqual(message, decoded(bytes.fromhex(data)))
            self.assertEqual(bytes.fromhex(data), message.encode())

    def test_parameterDescription(self) -> None:
        """Types of the parameters, by oid."""
        self.assertEqual(bytes.fromhex("74 0000000a 0001 00000017"), parameter_description((23,)))

    @given(MESSAGES)
    def test_roundTrip(self, message: ExtendedMessage) -> None:
        """What is encoded is decoded to the same."""
        self.assertEqual(message, decoded(message.encode()))

    @given(st.sampled_from(b"PBDEC"), st.binary(max_size=40))
    def test_anyBytes(self, kind: int, body: bytes) -> None:
        """Any body is a message or a violation of the protocol."""
        try:
            decode_extended(ExtendedQuery(kind, body))
        except WalsenderError as error:
            self.assertEqual("08P01", error.sqlstate)
