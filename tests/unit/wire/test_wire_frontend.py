"""What clients send, message by message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets

from walsender.errors import InvalidMessage
from walsender.wire import (
    CopyData,
    CopyDone,
    CopyFail,
    ExtendedQuery,
    Flush,
    FunctionCall,
    PasswordMessage,
    Query,
    Sync,
    Terminate,
    UnknownMessage,
    decode_frontend,
)

GOLDEN = (
    # psycopg and pg_receivewal: type, length, text, NUL
    (Query(b"SHOW x"), "51 0000000b 53484f572078 00"),
    (CopyData(b"r"), "64 00000005 72"),
    (CopyDone(), "63 00000004"),
    (CopyFail(b"no"), "66 00000007 6e6f 00"),
    (Terminate(), "58 00000004"),
    (PasswordMessage(b"md5\0"), "70 00000008 6d643500"),
    (Sync(), "53 00000004"),
    (Flush(), "48 00000004"),
    (ExtendedQuery(ord("P"), b"\0\0\0\0"), "50 00000008 00000000"),
    (FunctionCall(b"\0\0"), "46 00000006 0000"),
)


class FrontendMessageTests(SynchronousTestCase):
    """Bytes of each message, and back."""

    def test_goldenBytes(self) -> None:
        """Each message has the layout that protocol.sgml gives, and is read back."""
        for message, expected in GOLDEN:
            data = bytes.fromhex(expected)
            self.assertEqual(message.encode(), data)
            self.assertEqual(decode_frontend(data[0], data[5:]), message)

    def test_extendedQueriesAreOneClass(self) -> None:
        """Parse, Bind, Describe, Execute and Close are told apart by their type byte."""
        for kind in b"PBDEC":
            message = decode_frontend(kind, b"abc")
            self.assertEqual(message, ExtendedQuery(kind, b"abc"))

    def test_aQueryCannotContainNul(self) -> None:
        """What could not be read back is not written."""
        self.assertRaises(ValueError, Query(b"a\0b").encode)

    @given(st.integers(0, 255), octets(max_size=30))
    def test_anyBodyIsAMessageOrAnError(self, type_byte: int, body: bytes) -> None:
        """Every type and body decode to a message of that type, or raise InvalidMessage."""
        try:
            message = decode_frontend(type_byte, body)
        except InvalidMessage:
            self.assertIn(type_byte, b"QSH")
        else:
            self.assertEqual(message.type_byte, type_byte)
            self.assertEqual(isinstance(message, UnknownMessage), type_byte not in b"QdcfXpSHPBDECF")
