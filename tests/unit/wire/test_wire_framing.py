"""
Framing of what clients send.

Invariant: any bytes, cut anywhere, give the same messages and then nothing, or a
`WalsenderError`; nothing is stored beyond what is allowed.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets, strings

from walsender.errors import InvalidMessage, ProtocolViolation, WalsenderError
from walsender.wire import (
    COMMAND_MESSAGES,
    COPY_MESSAGES,
    HANDSHAKE_MESSAGES,
    PASSWORD_MESSAGES,
    SASL_MESSAGES,
    BackendBuffer,
    CommandComplete,
    CopyData,
    CopyDone,
    CopyFail,
    ExtendedQuery,
    Flush,
    FrontendBuffer,
    FrontendMessage,
    FunctionCall,
    InvalidMessageLength,
    InvalidPacketLength,
    MessageRules,
    PasswordMessage,
    Query,
    ReadyForQuery,
    SilentViolation,
    Sync,
    Terminate,
    UnexpectedMessageType,
    UnknownMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_RULES = (COMMAND_MESSAGES, COPY_MESSAGES, PASSWORD_MESSAGES, SASL_MESSAGES, HANDSHAKE_MESSAGES)

messages = st.one_of(
    st.builds(Query, strings),
    st.builds(CopyData, octets(max_size=40)),
    st.just(CopyDone()),
    st.builds(CopyFail, strings),
    st.just(Terminate()),
    st.just(Sync()),
    st.just(Flush()),
    st.builds(ExtendedQuery, st.sampled_from(b"PBDEC"), octets(max_size=40)),
    st.builds(FunctionCall, octets(max_size=40)),
)


def header(type_byte: bytes, length: int) -> bytes:
    """Return the first five bytes of a message."""
    return type_byte + struct.pack("!i", length)


def drain(buffer: FrontendBuffer, rules: MessageRules) -> Iterator[FrontendMessage | str]:
    """Give what can be taken now: messages, and the texts of errors about bodies."""
    while True:
        try:
            message = buffer.next_message(rules)
        except InvalidMessage as error:
            yield str(error)
            continue
        if message is None:
            return
        yield message


def read(pieces: list[bytes], rules: MessageRules) -> list[FrontendMessage | str]:
    """Return all that comes out when *pieces* come in; a broken stream ends with the error."""
    buffer = FrontendBuffer()
    taken: list[FrontendMessage | str] = []
    try:
        for piece in pieces:
            buffer.receive_data(piece)
            taken += drain(buffer, rules)
    except WalsenderError as error:
        taken.append(f"{type(error).__name__}: {error}")
    return taken


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return *data* in pieces."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


class PacketTests(SynchronousTestCase):
    """Packets before authentication."""

    def test_takesThePacketWithoutItsLength(self) -> None:
        """An SSLRequest, as libpq sends it, comes out as its code."""
        buffer = FrontendBuffer()
        buffer.receive_data(bytes.fromhex("00000008 04d2162f"))
        self.assertEqual(buffer.next_packet(), bytes.fromhex("04d2162f"))
        self.assertEqual(buffer.pending, 0)

    def test_waitsForTheWholePacket(self) -> None:
        """Until the last byte is there, nothing is taken."""
        buffer = FrontendBuffer()
        for byte in bytes.fromhex("00000008 04d216"):
            buffer.receive_data(bytes((byte,)))
            self.assertIsNone(buffer.next_packet())
        buffer.receive_data(b"\x2f")
        self.assertEqual(buffer.next_packet(), bytes.fromhex("04d2162f"))

    def test_whatFollowsAPacketStays(self) -> None:
        """Bytes behind a packet are counted, and wait for whatever parser comes next."""
        buffer = FrontendBuffer()
        buffer.receive_data(bytes.fromhex("00000008 04d2162f") + Query(b"x").encode())
        buffer.next_packet()
        self.assertEqual(buffer.pending, 7)
        self.assertEqual(buffer.peek_type(), ord("Q"))
        self.assertEqual(buffer.next_message(), Query(b"x"))

    def test_refusesImpossibleLengthsFromTheHeaderAlone(self) -> None:
        """A length word outside 8 to 10004 is refused, again and again, without waiting for the packet."""
        for length in (-(1 << 31), -1, 0, 4, 7, 10005, 0x16030100, (1 << 31) - 1):
            buffer = FrontendBuffer()
            buffer.receive_data(struct.pack("!i", length))
            for _ in range(2):
                error = self.assertRaises(InvalidPacketLength, buffer.next_packet)
                self.assertEqual(error.message, "invalid length of startup packet")
                self.assertIsInstance(error, SilentViolation)

    def test_acceptsTheLongestPacket(self) -> None:
        """A length word of 10004 is legal, and so is 8."""
        for length in (8, 10004):
            buffer = FrontendBuffer()
            buffer.receive_data(struct.pack("!i", length) + bytes(length - 4))
            self.assertEqual(buffer.next_packet(), bytes(length - 4))

    def test_thereIsNoTypeInAnEmptyBuffer(self) -> None:
        """Before the first byte there is nothing to peek at."""
        self.assertIsNone(FrontendBuffer().peek_type())

    @given(octets(max_size=64), st.lists(st.integers(0, 64), max_size=4))
    def test_anyBytesGivePacketsOrAnError(self, data: bytes, cuts: list[int]) -> None:
        """Whatever comes, cut anywhere, is a packet of at least four bytes, nothing yet, or an error."""
        buffer = FrontendBuffer()
        with contextlib.suppress(InvalidPacketLength):
            for piece in split(data, cuts):
                buffer.receive_data(piece)
                while (packet := buffer.next_packet()) is not None:
                    self.assertGreaterEqual(len(packet), 4)


class MessageTests(SynchronousTestCase):
    """Typed messages."""

    def test_takesAQuery(self) -> None:
        """IDENTIFY_SYSTEM as pg_receivewal sends it: type, length, text, NUL."""
        data = b"Q" + bytes.fromhex("00000014") + b"IDENTIFY_SYSTEM\0"
        self.assertEqual(read([data], COMMAND_MESSAGES), [Query(b"IDENTIFY_SYSTEM")])

    @given(st.lists(messages, max_size=6), st.lists(st.integers(0, 300), max_size=6))
    def test_anySplitGivesTheSameMessages(self, sent: list[FrontendMessage], cuts: list[int]) -> None:
        """Where the stream is cut makes no difference."""
        data = b"".join(message.encode() for message in sent if not isinstance(message, UnknownMessage))
        self.assertEqual(read(split(data, cuts), COMMAND_MESSAGES), sent)

    @given(st.lists(messages, max_size=3))
    def test_byteByByteGivesTheSameMessages(self, sent: list[FrontendMessage]) -> None:
        """The smallest pieces give the same messages, too."""
        data = b"".join(message.encode() for message in sent if not isinstance(message, UnknownMessage))
        pieces = [data[at : at + 1] for at in range(len(data))]
        self.assertEqual(read(pieces, COMMAND_MESSAGES), sent)

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                octets(max_size=20),
                st.builds(
                    lambda kind, body, extra: header(bytes((kind,)), len(body) + 4 + extra) + body,
                    st.integers(0, 255),
                    octets(max_size=12),
                    st.integers(-5, 3),
                ),
                st.builds(lambda kind: header(bytes((kind,)), 4), st.sampled_from(b"QPBFXDECHScfdp")),
            ),
            max_size=5,
        ),
        st.lists(st.integers(0, 100), max_size=4),
        st.sampled_from(ALL_RULES),
    )
    def test_anyBytesGiveMessagesOrATypedError(
        self, parts: list[bytes], cuts: list[int], rules: MessageRules
    ) -> None:
        """Garbage gives what the same garbage in one piece gives, and never another exception."""
        data = b"".join(parts)
        self.assertEqual(read(split(data, cuts), rules), read([data], rules))

    def test_passwordsComeOutAsTheyAre(self) -> None:
        """A password message is bytes: what they mean depends on the request."""
        self.assertEqual(
            read([PasswordMessage(b"n,,n=").encode()], PASSWORD_MESSAGES), [PasswordMessage(b"n,,n=")]
        )

    def test_aBadBodyDoesNotDestroyFraming(self) -> None:
        """After an error about a body the next message is readable."""
        data = b"".join(
            (
                header(b"Q", 8) + b"SHOW",  # no NUL
                header(b"Q", 9) + b"SH\0OW",  # bytes behind it
                header(b"S", 5) + b"x",  # a Sync is empty
                header(b"H", 5) + b"x",  # a Flush too
                Query(b"SHOW x").encode(),
            )
        )
        self.assertEqual(
            read([data], COMMAND_MESSAGES),
            [
                "invalid string in message",
                "invalid message format",
                "invalid message format",
                "invalid message format",
                Query(b"SHOW x"),
            ],
        )

    def test_errorsAboutBodiesAreNotFatal(self) -> None:
        """They are ERROR 08P01: the session goes on."""
        buffer = FrontendBuffer()
        buffer.receive_data(header(b"Q", 4))
        error = self.assertRaises(InvalidMessage, buffer.next_message)
        self.assertEqual((error.severity, error.sqlstate), ("ERROR", "08P01"))

    def test_bodiesThatNobodyReadsMayHoldAnything(self) -> None:
        """PostgreSQL looks into no CopyDone, CopyFail or Terminate of a walsender's client."""
        data = header(b"c", 5) + b"x" + header(b"f", 6) + b"xy" + header(b"X", 5) + b"x"
        self.assertEqual(read([data], COMMAND_MESSAGES), [CopyDone(), CopyFail(b"xy"), Terminate()])


class LimitTests(SynchronousTestCase):
    """What is refused from the header, and at which length."""

    def assertLimit(self, rules: MessageRules, type_byte: bytes, limit: int) -> None:
        """Check that *limit* is accepted from the header, one more is not."""
        buffer = FrontendBuffer()
        buffer.receive_data(header(type_byte, limit))
        self.assertIsNone(buffer.next_message(rules))
        for length in (limit + 1, (1 << 31) - 1, 3, 0, -1, -(1 << 31)):
            buffer = FrontendBuffer()
            buffer.receive_data(header(type_byte, length))
            for _ in range(2):
                error = self.assertRaises(InvalidMessageLength, buffer.next_message, rules)
                self.assertEqual(error.message, "invalid message length")
                self.assertIsInstance(error, SilentViolation)
                self.assertIsInstance(error, ProtocolViolation)

    def test_shortMessages(self) -> None:
        """The types that carry no text end at 10000, as PostgreSQL's."""
        for kind in b"XDECHScf":
            self.assertLimit(COMMAND_MESSAGES, bytes((kind,)), 10_000)
        for kind in b"cX":
            self.assertLimit(COPY_MESSAGES, bytes((kind,)), 10_000)

    def test_commands(self) -> None:
        """A command may have a megabyte."""
        for kind in b"QPBF":
            self.assertLimit(COMMAND_MESSAGES, bytes((kind,)), 1 << 20)

    def test_standbyData(self) -> None:
        """A standby's CopyData may have 64 kB, between commands as well as in a stream."""
        self.assertLimit(COMMAND_MESSAGES, b"d", 1 << 16)
        self.assertLimit(COPY_MESSAGES, b"d", 1 << 16)

    def test_passwords(self) -> None:
        """A password may have 65535 bytes, a SASL message 1024."""
        self.assertLimit(PASSWORD_MESSAGES, b"p", 65_535)
        self.assertLimit(SASL_MESSAGES, b"p", 1024)

    def test_firstDialect(self) -> None:
        """The first walsender frames every type before it looks at it."""
        self.assertLimit(HANDSHAKE_MESSAGES, b"Q", 1 << 20)
        self.assertLimit(HANDSHAKE_MESSAGES, b"z", 1 << 20)

    def test_aMillionSingleBytesTakeLinearTime(self) -> None:
        """A long message that comes byte by byte is looked at by its header only."""
        buffer = FrontendBuffer()
        message = Query(b"x" * 300_000).encode()
        for at in range(len(message)):
            self.assertIsNone(buffer.next_message())
            buffer.receive_data(message[at : at + 1])
        self.assertEqual(buffer.next_message(), Query(b"x" * 300_000))

    def test_manyMessagesInOnePieceTakeLinearTime(self) -> None:
        """Taking a message does not move all that is behind it."""
        buffer = FrontendBuffer()
        buffer.receive_data(Sync().encode() * 200_000)
        self.assertEqual(sum(1 for _ in drain(buffer, COMMAND_MESSAGES)), 200_000)
        self.assertEqual(buffer.pending, 0)


class TypeTests(SynchronousTestCase):
    """Types that the state does not read."""

    def assertRefused(self, rules: MessageRules, type_byte: bytes, message: str) -> None:
        """Check that the type byte alone is refused, and how."""
        buffer = FrontendBuffer()
        buffer.receive_data(type_byte)
        for _ in range(2):
            error = self.assertRaises(UnexpectedMessageType, buffer.next_message, rules)
            self.assertEqual(error.message, message)
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "08P01"))
            self.assertEqual(bytes((error.type_byte,)), type_byte)

    def test_betweenCommands(self) -> None:
        """A password out of place, for example; the code is decimal."""
        self.assertRefused(COMMAND_MESSAGES, b"p", "invalid frontend message type 112")
        self.assertRefused(COMMAND_MESSAGES, b"\0", "invalid frontend message type 0")

    def test_inAStream(self) -> None:
        """A query in a stream, for example; the type is shown as the byte it is."""
        for kind in b"QSHf":
            self.assertRefused(COPY_MESSAGES, bytes((kind,)), f'invalid standby message type "{chr(kind)}"')
        self.assertRefused(COPY_MESSAGES, b"\xe4", 'invalid standby message type "\udce4"')

    def test_insteadOfAPassword(self) -> None:
        """A query before authentication."""
        self.assertRefused(PASSWORD_MESSAGES, b"Q", "expected password response, got message type 81")
        self.assertRefused(SASL_MESSAGES, b"Q", "expected SASL response, got message type 81")

    def test_inTheFirstDialect(self) -> None:
        """There the whole message is taken, and what it holds is not looked at."""
        data = CopyData(b"x").encode() + header(b"S", 5) + b"x" + Query(b"y").encode()
        self.assertEqual(
            read([data], HANDSHAKE_MESSAGES),
            [UnknownMessage(ord("d")), UnknownMessage(ord("S")), Query(b"y")],
        )


class BackendBufferTests(SynchronousTestCase):
    """The other side, for clients."""

    def test_takesWhatAServerSends(self) -> None:
        """Messages come out whole, in order, wherever the stream is cut."""
        data = CommandComplete("IDENTIFY_SYSTEM").encode() + ReadyForQuery().encode()
        buffer = BackendBuffer()
        taken = []
        for at in range(len(data)):
            buffer.receive_data(data[at : at + 1])
            message = buffer.next_message()
            if message is not None:
                taken.append(message)
        self.assertEqual(taken, [CommandComplete("IDENTIFY_SYSTEM"), ReadyForQuery()])
        self.assertIsNone(buffer.next_message())

    def test_refusesLongMessages(self) -> None:
        """The caller's limit is looked up in the header."""
        buffer = BackendBuffer()
        buffer.receive_data(header(b"d", 101))
        self.assertIsNone(buffer.next_message(limit=101))
        self.assertRaises(InvalidMessageLength, buffer.next_message, limit=100)

    @given(octets(max_size=60))
    def test_anyBytesGiveMessagesOrATypedError(self, data: bytes) -> None:
        """Garbage is an error of ours, never another exception."""
        buffer = BackendBuffer()
        buffer.receive_data(data)
        with contextlib.suppress(WalsenderError):
            while buffer.next_message() is not None:
                pass
