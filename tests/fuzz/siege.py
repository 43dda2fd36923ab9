"""
A server under siege: clients that know the protocol and bend it, while one standby just wants its WAL.

Invariants, checked after each deed and at the end:

* nothing is logged as a mistake of ours, no client writes lines of its own into the log, and nobody is told
  "internal error";
* what a client gets is well-formed: ``N`` for encryption requests, then whole messages; each error has
  severity, SQLSTATE and text;
* what is kept for a client is bounded, before it is let in by far less than after;
* the standby that behaves gets all WAL, in order, and its connection stays;
* when the others are gone, nothing of them is left: no place, no subscription, no file, no timer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Final

from checks import Broken, Mistakes, check_output
from gate import authorizer, final_message, first_message
from protocol_helpers import Client, ClockReactor, Server, copy_data, message, query, startup_packet
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import globalLogPublisher
from vocabulary import COMMANDS, NAMES, NUMBERS, PARAMETERS, PROTOCOLS

from walsender.lsn import LSN, Geometry
from walsender.sender.states import State
from walsender.testing.source import ScriptedSource, wal_bytes
from walsender.wire.dialect import FirstDialect, dialect_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

SEGMENT: Final = 1 << 20
BEGIN: Final = 2 * SEGMENT - (64 << 10)
STEP: Final = 64 << 10
MAX_WAL: Final = SEGMENT + 32 * STEP  # beyond BEGIN

# None: the dialect 8.5.
VERSIONS: Final = (180000, None, 90000, 90100, 90200, 90300, 90400, 90600, 100000, 140000, 170000, 190000)

PEERS: Final[tuple[IAddress, ...]] = (
    IPv4Address("TCP", "127.0.0.1", 40001),
    IPv6Address("TCP", "::1", 40002),
    UNIXAddress(None),
    IPv4Address("TCP", "192.0.2.7", 40003),
)

# Before a client is let in: the largest packet, what is kept while its password is computed, and one read.
READ_SIZE: Final = 64 << 10
BEFORE: Final = 10_004 + (64 << 10) + READ_SIZE
# A command, what is kept while input is held back, and two reads.
AFTER: Final = (1 << 20) + (64 << 10) + 2 * READ_SIZE
OUTPUT: Final = (64 << 10) + (256 << 10)


class EverlastingSource(ScriptedSource):
    """A `ScriptedSource` that makes its files once for all; nobody spoils them here."""

    _made: ClassVar[dict[int, Any]] = {}

    def _file(self, number: int) -> Any:
        if number not in self._made:
            self._made[number] = super()._file(number)
            self._files.clear()
        return self._made[number]


class Offender:
    """
    One client that does what it likes.

    :ivar outbox: what it has said, and the network has not delivered.
    :ivar said: what has been delivered, as it was cut.
    """

    def __init__(self, server: Server, peer: IAddress) -> None:
        self.client = Client(server, peer)
        self.outbox = bytearray()
        self.said: list[bytes] = []

    def deliver(self, cut: int) -> None:
        """Let the network deliver, cut in a way that *cut* chooses."""
        data, self.outbox = bytes(self.outbox), bytearray()
        way, rest = cut % 4, cut // 4
        if way == 1:
            kept = rest % 16 + 1  # the tail comes with what is said next
            data, self.outbox = data[:-kept], bytearray(data[-kept:])
        step = READ_SIZE
        if way == 2:
            step = rest % 7 + 1 if len(data) < 300 else rest % 5000 + 50
        elif way == 3:
            at = rest % (len(data) + 1)
            self._arrives(data[:at])
            data = data[at:]
        for at in range(0, len(data), step):
            self._arrives(data[at : at + step])

    def _arrives(self, data: bytes) -> None:
        if data and not self.client.transport.disconnected:
            self.said.append(data)
            self.client.transport.deliver(data)


class Siege:
    """
    A server, a standby that behaves, and up to three offenders.

    :param version: of the dialect; ``None``: 8.5.
    """

    def __init__(self, version: int | None) -> None:
        self.version = version
        self.mistakes = Mistakes()
        globalLogPublisher.addObserver(self.mistakes)
        self.source = EverlastingSource(
            BEGIN + 1000,
            geometry=Geometry.contiguous(SEGMENT),
            server_version=version or 90000,
        )
        dialect = FirstDialect(90000, "little") if version is None else dialect_of(version, "little")
        self.dialect = dialect
        reactor = ClockReactor()
        self.server = Server(
            self.source, dialect, reactor=reactor, authorizer=authorizer(reactor), max_wal_senders=4
        )
        self.offenders: list[Offender] = []
        self.said: list[list[bytes]] = []  # by all who have ever come
        self.standby = self.server.started(application_name="standby")
        self.standby.send(query(f"START_REPLICATION {LSN(BEGIN)}"))
        self.standby_got = bytearray()
        self._standby_at = BEGIN
        self._current = 0

    # What a client can do; each deed takes numbers, which choose.

    @property
    def offender(self) -> Offender:
        """The one whose turn it is."""
        if not self.offenders:
            self.connect(0)
        return self.offenders[self._current % len(self.offenders)]

    def connect(self, choice: int) -> None:
        """Somebody new comes, perhaps in the place of somebody who leaves without a word."""
        if len(self.offenders) >= 3:
            self._dismiss(self.offenders.pop(choice % 3))
        offender = Offender(self.server, PEERS[choice % len(PEERS)])
        self.offenders.append(offender)
        self.said.append(offender.said)
        self._current = len(self.offenders) - 1

    def take_turns(self, choice: int) -> None:
        """It is somebody else's turn."""
        self._current = choice

    def say(self, data: bytes, cut: int = 0) -> None:
        """Say *data*."""
        offender = self.offender
        if len(offender.outbox) < 2 << 20:
            offender.outbox += data
        offender.deliver(cut)

    def start_up(self, choice: int, cut: int = 0) -> None:
        """A StartupMessage, good or bad, perhaps not the first."""
        parameters = PARAMETERS[choice % len(PARAMETERS)]
        version = PROTOCOLS[choice // len(PARAMETERS) % len(PROTOCOLS)]
        encoded = {name: text.encode("utf-8", "surrogateescape") for name, text in parameters.items()}
        packet = startup_packet(version, **dict.fromkeys(parameters, "?"))
        body = packet[8:-1]
        for name, value in encoded.items():
            body = body.replace(f"{name}\0?\0".encode(), name.encode() + b"\0" + value + b"\0")
        self.say(struct.pack(">II", len(body) + 9, version) + body + b"\0", cut)

    def come_in(self, choice: int) -> None:
        """As `start_up`, in good order."""
        self.start_up(choice % 4)

    def ask_encryption(self, choice: int, cut: int = 0) -> None:
        """Encryption requests, in any order and number."""
        codes = (80877103, 80877104)
        requests = (codes[choice >> bit & 1] for bit in range(1 + choice % 5))
        for code in requests:
            self.say(struct.pack(">II", 8, code), cut)

    def say_hello(self, choice: int, cut: int = 0) -> None:
        """The beginning of a TLS handshake, or an HTTP request, where a packet belongs."""
        hellos = (bytes.fromhex("1603010200010001fc0303"), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff")
        self.say(hellos[choice % 3] + bytes(choice % 300), cut)

    def cancel(self, choice: int, cut: int = 0) -> None:
        """A CancelRequest: for whom, with whose key."""
        process_id, key = choice % 9, bytes(choice % 40)
        for other in self.offenders:
            session = other.client.protocol.session
            if session is not None and choice % 3:
                process_id, key = session.entry.process_id, session.cancel_key
        self.say(struct.pack(">IIi", 12 + len(key), 80877102, process_id) + key, cut)

    def begin_scram(self, choice: int, cut: int = 0) -> None:
        """The first message of SCRAM: as it should be, or with a channel binding that does not fit."""
        headers = (b"n,,", b"n,,", b"y,,", b"p=tls-server-end-point,,", b"n,a=x,", b"")
        mechanism = b"SCRAM-SHA-256-PLUS" if choice % 7 == 6 else b"SCRAM-SHA-256"
        self.say(message(b"p", first_message(mechanism, headers[choice % len(headers)])), cut)

    def end_scram(self, choice: int, cut: int = 0) -> None:
        """The last message of SCRAM, right or wrong, perhaps for another binding."""
        received = bytes(self.offender.client.transport.value())
        at = received.rfind(struct.pack(">I", 11))
        length = struct.unpack(">I", received[at - 4 : at])[0] if at >= 5 else 8
        server_first = received[at + 4 : at - 4 + length] if at >= 5 else b""
        binding = (b"biws", b"biws", b"biws", b"eSws", b"")[choice // 8 % 5]
        try:
            answer = final_message(server_first, binding=binding, spoil=(0, 0, 0, 0, 1, 2, 3, 4)[choice % 8])
        except ValueError:  # what was found was no answer to a first message
            answer = b"c=biws,r=x,p="
        self.say(message(b"p", answer), cut)

    def give_password(self, choice: int, cut: int = 0) -> None:
        """A password or SASL message nobody has asked for, or somebody has."""
        bodies = (
            b"secret\0",
            b"",
            b"SCRAM-SHA-256\0" + struct.pack(">i", 32) + b"n,,n=,r=rOprNGfwEbeRWgbNEkqOabcd",
            b"SCRAM-SHA-256-PLUS\0" + struct.pack(">i", -1),
            b"SCRAM-SHA-256\0" + struct.pack(">i", 0x7FFFFFFF) + b"n,,",
            b"c=biws,r=x,p=" + b"A" * (choice % 1500),
            b"\0" * (choice % 70000),
        )
        self.say(message(b"p", bodies[choice % len(bodies)]), cut)

    def command(self, choice: int, cut: int = 0) -> None:
        """A command of some version, with names and numbers of all kinds."""
        template = COMMANDS[choice % len(COMMANDS)]
        choice //= len(COMMANDS)
        name, number = NAMES[choice % len(NAMES)], NUMBERS[choice // 7 % len(NUMBERS)]
        lsn = LSN(BEGIN + choice % (3 * STEP))
        text = template.format(name=name, number=number, lsn=lsn)
        self.say(message(b"Q", text.encode("utf-8", "surrogateescape") + b"\0"), cut)

    def stream(self, choice: int) -> None:
        """Ask for WAL, in good order."""
        self.say(query(f"START_REPLICATION {LSN(BEGIN + choice % (2 * SEGMENT))}"))

    def text(self, data: bytes, cut: int = 0) -> None:
        """A command of any bytes."""
        self.say(message(b"Q", data), cut)

    def message(self, kind: int, data: bytes, cut: int = 0) -> None:
        """A message of any type."""
        self.say(message(bytes((kind % 256,)), data), cut)

    def lie(self, kind: int, length: int, cut: int = 0) -> None:
        """A message whose length word is what it likes."""
        self.say(bytes((kind % 256,)) + struct.pack(">I", length % (1 << 32)), cut)

    def large(self, choice: int, cut: int = 0) -> None:
        """A message as long as is allowed, or a little longer."""
        kind = b"Qdpfc"[choice % 5 : choice % 5 + 1]
        limit = {b"Q": 1 << 20, b"d": 64 << 10, b"p": 65535, b"f": 10000, b"c": 10000}[kind]
        self.say(kind + struct.pack(">i", limit + choice % 2) + b"SHOW " * (limit // 5), cut)

    def report(self, choice: int, cut: int = 0) -> None:
        """What a standby reports: any positions, any transactions, any tag, any length."""
        at = BEGIN + choice % MAX_WAL if choice % 3 else choice * 0x9E3779B97F4A7C15 % (1 << 64)
        bodies = (
            b"r" + struct.pack(">QQQqB", at, at, at, 0, choice % 2),
            b"r" + struct.pack(">QQQqB", (1 << 64) - 1, 0, at, -(1 << 63), 1),
            b"h" + struct.pack(">qIIII", (1 << 63) - 1, choice % (1 << 32), 5, 6, 7),
            b"r" + struct.pack("<QQQq", at, at, at, 0),
            b"r" + bytes(choice % 40),
            bytes((choice % 256,)),
            b"",
        )
        self.say(copy_data(bodies[choice % len(bodies)]), cut)

    def end_copy(self, choice: int, cut: int = 0) -> None:
        """CopyDone, CopyFail, Sync, Flush, Terminate, the extended protocol."""
        kinds = b"cccfSHXPBDEFcS"
        kind = kinds[choice % len(kinds) : choice % len(kinds) + 1]
        self.say(message(kind, b"\0" * (choice % 3)), cut)

    def read(self, choice: int) -> None:
        """Read some of what there is."""
        self.offender.client.transport.drain(choice % (3 * STEP))

    def read_all(self, choice: int) -> None:
        """Read all there is."""
        self.offender.client.transport.drain_all()

    def close_half(self, choice: int) -> None:
        """Say no more."""
        if not self.offender.client.transport.disconnected:
            self.offender.client.transport.deliver_eof()

    def leave(self, choice: int) -> None:
        """Go without a word."""
        if self.offenders:
            self._dismiss(self.offenders.pop(choice % len(self.offenders)))

    # What happens beside

    def grow(self, choice: int) -> None:
        """WAL grows."""
        self.source.grow(min(self.source.flush_position + choice % STEP, BEGIN + MAX_WAL))

    def pass_time(self, choice: int) -> None:
        """Time passes; the standby lives."""
        self.standby_reads()
        self.server.reactor.advance(choice % 50)
        if self.version is not None and self.version >= 90100:
            body = b"r" + struct.pack(">QQQqB" if self.version >= 90300 else "<QQQq", *self._status())
            self.standby.send(copy_data(body))

    def _status(self) -> tuple[int, ...]:
        at = self._standby_at
        last = (0, 0) if self.version is not None and self.version >= 90300 else (0,)
        return (at, at, at, *last)

    def hold_threads(self, choice: int) -> None:
        """The disk takes its time, or has taken it."""
        pool = self.server.reactor.pool
        pool.holding = bool(choice % 2)
        if not pool.holding:
            pool.run()

    # Checks

    def check(self) -> None:
        """Check what must hold at any time."""
        if self.mistakes:
            raise Broken(self.mistakes[0])
        for offender in self.offenders:
            protocol = offender.client.protocol
            bound = BEFORE if protocol.session is None else AFTER
            if protocol.state is not State.CLOSED and protocol._input.pending > bound:
                raise Broken(f"{protocol._input.pending} bytes are kept in {protocol.state}")
            if offender.client.transport.buffered > OUTPUT:
                raise Broken(
                    f"{offender.client.transport.buffered} bytes wait for a client that does not read"
                )
            check_output(bytes(offender.client.transport.received), whole=False)

    def standby_reads(self) -> None:
        """The standby takes all there is, and it is what it should be."""
        self.standby_got += self.standby.receive()
        if self.standby.transport.disconnected or not self.standby.protocol.is_streaming:
            raise Broken("the standby has lost its stream")
        at = 0
        while len(self.standby_got) >= at + 5:
            (length,) = struct.unpack_from(">I", self.standby_got, at + 1)
            body = bytes(self.standby_got[at + 5 : at + 1 + length])
            if body[:1] == b"w" and self.standby_got[at : at + 1] == b"d":
                self._standby_wal(body)
            at += 1 + length
        del self.standby_got[:at]

    def _standby_wal(self, body: bytes) -> None:
        header = 9 if self.version is None else 25
        wal = body[header:]
        if wal != wal_bytes(self._standby_at, self._standby_at + len(wal)):
            raise Broken(f"the standby got other WAL than that from {LSN(self._standby_at)}")
        self._standby_at += len(wal)

    def _dismiss(self, offender: Offender) -> None:
        transport = offender.client.transport
        self.server.reactor.pool.holding = False
        self.server.reactor.pool.run()
        transport.drain_all()
        # Before 9.3 who says good-bye inside a message does not get the rest of it; nor from PostgreSQL.
        whole = transport.disconnected and not transport.aborted and (self.version or 0) >= 90300
        check_output(bytes(transport.received), whole=whole)
        transport.lose()

    def end(self) -> None:
        """Everybody leaves; nothing must be left."""
        try:
            while self.offenders:
                self._dismiss(self.offenders.pop())
            self.grow(STEP)
            self.standby_reads()
            sent = self.source.flush_position
            # A dialect of 8.5 to 9.2 ends on a page.
            if self._standby_at != sent:
                raise Broken(f"the standby has WAL to {LSN(self._standby_at)} of {LSN(sent)}")
            if len(self.server.factory.slot_table) != 1:
                raise Broken("places are taken by nobody")
            self.standby.transport.lose()
            left = {
                "places": len(self.server.factory.slot_table),
                "subscribers": len(self.source.subscribers),
                "segments": self.source.open_count,
                "timers": len(self.server.reactor.getDelayedCalls()),
                "slots": len(list(self.server.factory.slots)),
                "connections": len(self.server.factory._connections),
            }
            if any(left.values()):
                raise Broken(f"left behind: {left}")
            if self.mistakes:
                raise Broken(self.mistakes[0])
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything, whatever has happened."""
        globalLogPublisher.removeObserver(self.mistakes)
        self.source.close()
