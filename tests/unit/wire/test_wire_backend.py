"""What a walsender sends, message by message."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets, texts

from walsender.errors import FeatureNotSupported, InvalidMessage, InvalidStartupParameter, UnsupportedProtocol
from walsender.wire import (
    AUTHENTICATION_OK,
    AuthenticationRequest,
    BackendKeyData,
    BackendMessage,
    CommandComplete,
    CopyBothResponse,
    CopyData,
    CopyDone,
    CopyOutResponse,
    DataRow,
    ErrorResponse,
    Field,
    NegotiateProtocolVersion,
    NoticeResponse,
    ParameterStatus,
    ReadyForQuery,
    RowDescription,
    decode_backend,
    old_format_error,
    truncation_notice,
)

# From transcripts of PostgreSQL 18.4 and from protocol.sgml.
GOLDEN = (
    (AUTHENTICATION_OK, "52 00000008 00000000"),
    (AuthenticationRequest(5, b"salt"), "52 0000000c 00000005 73616c74"),  # MD5
    (AuthenticationRequest(12, b"v="), "52 0000000a 0000000c 763d"),  # end of SASL
    (ParameterStatus("a", "on"), "53 00000009 61 00 6f6e 00"),
    (BackendKeyData(20919, b"\1\2\3\4"), "4b 0000000c 000051b7 01020304"),  # 3.0
    (BackendKeyData(1, bytes(32)), "4b 00000028 00000001" + "00" * 32),  # 3.2
    (ReadyForQuery(), "5a 00000005 49"),
    (
        RowDescription((Field("systemid", 25, -1), Field("timeline", 23, 4, 0))),
        # each field: name, NUL, table, attribute, type, type length, type modifier, format
        (
            "54 0000003c 0002"
            " 73797374656d6964 00 00000000 0000 00000019 ffff ffffffff 0000"
            " 74696d656c696e65 00 00000000 0000 00000017 0004 00000000 0000"
        ),
    ),
    (DataRow((b"1", None, b"")), "44 00000013 0003 00000001 31 ffffffff 00000000"),
    (CommandComplete("COPY 0"), "43 0000000b 434f50592030 00"),
    (CopyOutResponse(), "48 00000007 00 0000"),
    (CopyBothResponse(), "57 00000007 00 0000"),
    (CopyBothResponse(1, (1, 0)), "57 0000000b 01 0002 0001 0000"),
    (CopyData(b"k"), "64 00000005 6b"),
    (CopyDone(), "63 00000004"),
    (NegotiateProtocolVersion((3, 2)), "76 0000000c 00030002 00000000"),
    (NegotiateProtocolVersion((3, 0), ("_pq_.foo",)), "76 00000015 00030000 00000001 5f70715f2e666f6f 00"),
    (
        NoticeResponse("NOTICE", "42622", "m"),
        "4e 0000001f 534e4f54494345 00 564e4f54494345 00 433432363232 00 4d6d 00 00",
    ),
)

int16 = st.integers(-(1 << 15), (1 << 15) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
oid = st.integers(0, (1 << 32) - 1)
reports = {
    "severity": texts,
    "sqlstate": texts,
    "message": texts,
    "detail": st.none() | texts,
    "hint": st.none() | texts,
    "others": st.lists(st.tuples(st.sampled_from("PFLR"), texts), max_size=3).map(tuple),
}
messages: st.SearchStrategy[BackendMessage] = st.one_of(
    st.builds(AuthenticationRequest, int32, octets(max_size=12)),
    st.builds(ParameterStatus, texts, texts),
    st.builds(BackendKeyData, int32, octets(min_size=4, max_size=32)),
    st.builds(ReadyForQuery, st.sampled_from((b"I", b"T", b"E"))),
    st.builds(
        RowDescription,
        st.lists(st.builds(Field, texts, oid, int16, int32, oid, int16, int16), max_size=3).map(tuple),
    ),
    st.builds(DataRow, st.lists(st.none() | octets(max_size=12), max_size=4).map(tuple)),
    st.builds(CommandComplete, texts),
    st.builds(ErrorResponse, **reports),
    st.builds(NoticeResponse, **reports),
    st.builds(CopyOutResponse, st.integers(0, 255), st.lists(int16, max_size=3).map(tuple)),
    st.builds(CopyBothResponse, st.integers(0, 255), st.lists(int16, max_size=3).map(tuple)),
    st.builds(CopyData, octets(max_size=12)),
    st.just(CopyDone()),
    st.builds(
        NegotiateProtocolVersion,
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        st.lists(texts, max_size=3).map(tuple),
    ),
)


class BackendMessageTests(SynchronousTestCase):
    """Bytes of each message, and back."""

    def test_goldenBytes(self) -> None:
        """Each message has the bytes that PostgreSQL sends, and is read back."""
        for message, expected in GOLDEN:
            data = bytes.fromhex(expected)
            self.assertEqual(message.encode(), data)
            self.assertEqual(decode_backend(data[0], data[5:]), message)

    @given(messages)
    def test_roundTrip(self, message: BackendMessage) -> None:
        """What is encoded decodes to the same, and the length word counts all but the type."""
        data = message.encode()
        self.assertEqual(int.from_bytes(data[1:5], "big"), len(data) - 1)
        self.assertEqual(decode_backend(data[0], data[5:]), message)

    @given(st.sampled_from(b"RSKZTDCENHWdcvx"), octets(max_size=40))
    def test_anyBodyIsAMessageOrAnError(self, type_byte: int, body: bytes) -> None:
        """Every body decodes, or raises InvalidMessage."""
        with contextlib.suppress(InvalidMessage):
            self.assertEqual(decode_backend(type_byte, body).type_byte, type_byte)

    def test_aTypeThatNobodySendsIsAnError(self) -> None:
        """A type that no walsender sends is refused."""
        error = self.assertRaises(InvalidMessage, decode_backend, ord("G"), b"")
        self.assertEqual(error.message, "unexpected message type 71")

    def test_aStringCannotContainNul(self) -> None:
        """A NUL in a string of ours is our mistake and noticed as such."""
        self.assertRaises(ValueError, CommandComplete("a\0b").encode)


class ErrorResponseTests(SynchronousTestCase):
    """How failures are told."""

    def test_fieldsOfAnErrorInOrder(self) -> None:
        """Severity twice, SQLSTATE, message, detail, hint."""
        error = InvalidStartupParameter("bad", detail="why", hint="try")
        self.assertEqual(
            ErrorResponse.from_error(error).encode()[5:],
            b"SFATAL\0VFATAL\0C22023\0Mbad\0Dwhy\0Htry\0\0",
        )

    def test_serversBefore96SendSeverityOnce(self) -> None:
        """The field V came with 9.6."""
        self.assertEqual(
            ErrorResponse.from_error(FeatureNotSupported("no")).encode(unlocalized_severity=False)[5:],
            b"SERROR\0C0A000\0Mno\0\0",
        )

    def test_severityCanBeRaised(self) -> None:
        """Where no error is recoverable, each goes out as FATAL."""
        response = ErrorResponse.from_error(FeatureNotSupported("no"), severity="FATAL")
        self.assertEqual(response.severity, "FATAL")
        self.assertEqual(response.sqlstate, "0A000")

    def test_otherFieldsComeLast(self) -> None:
        """Position, file, line and routine follow what we know by name."""
        response = ErrorResponse("ERROR", "42601", "syntax error", others=(("P", "1"), ("R", "scan")))
        self.assertEqual(response.encode()[-10:], b"\0P1\0Rscan\0\0"[-10:])

    def test_aNulEndsATextAsInC(self) -> None:
        """PostgreSQL 18 says just this for a message of type 0 in a stream; ours must not fail either."""
        response = ErrorResponse("FATAL", "08P01", 'invalid standby message type "\0"')
        self.assertIn(b'Minvalid standby message type "\0\0', response.encode())

    def test_missingFieldsAreEmpty(self) -> None:
        """An error without fields is read as one without texts; a repeated field is kept."""
        self.assertEqual(decode_backend(ord("E"), b"\0"), ErrorResponse("", "", ""))
        self.assertEqual(
            decode_backend(ord("E"), b"SFEHLER\0VERROR\0Ma\0Mb\0\0"),
            ErrorResponse("ERROR", "", "a", others=(("M", "b"),)),
        )

    def test_oldFormat(self) -> None:
        """Protocol 2.0 gets the bytes that PostgreSQL 18 sends: no length, one string."""
        error = UnsupportedProtocol("unsupported frontend protocol 2.0: server supports 3.0 to 3.2")
        self.assertEqual(
            old_format_error(error),
            b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0",
        )


class TruncationNoticeTests(SynchronousTestCase):
    """What is said when a name is cut."""

    def test_namesThatFitNeedNone(self) -> None:
        """63 bytes fit."""
        self.assertIsNone(truncation_notice("x" * 63))
        self.assertIsNone(truncation_notice("x" + "ä" * 31))

    def test_cutsAtAByte(self) -> None:
        """As PostgreSQL 18 with SQL_ASCII: in the middle of a character if it must be."""
        notice = truncation_notice("x" * 62 + "ä")
        self.assertEqual(
            notice,
            NoticeResponse(
                "NOTICE",
                "42622",
                f'identifier "{"x" * 62}ä" will be truncated to "{"x" * 62}\udcc3"',
            ),
        )
