"""
The same bytes to walsender and to a real PostgreSQL over the same WAL, and what is compared of the answers.

A conversation is data: who says which bytes, and up to what is read then.  Of the answers
everything is compared but what must differ: process ids, keys, times, places in the source
code, the values of reported parameters, how WAL is cut into messages, and how far each
server has WAL (PostgreSQL, started on it, writes on).
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from walsender.lsn import LSN
from walsender.testing.archives import SEGMENT_SIZE
from walsender.testing.raw_client import Message, RawConnection, startup_packet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    from walsender.testing.archives import Archive

    class HasPort(Protocol):
        """A server on this machine."""

        port: int


#: The end of a connection, in a transcript.
END: Final = "end of connection"

#: What the servers tell of their own; the same in both once it is gone.
_PROCESS: Final = re.compile(r"PID \d+")
_FLUSHED: Final = re.compile(r"(flush position of this server) [0-9A-F]+/[0-9A-F]+")

Heard = tuple[object, ...]


class Say(NamedTuple):
    """
    One turn of a conversation.

    :ivar data: what is sent; a text has places for `places`.
    :ivar until: type bytes, at the first of which reading stops; the end of the connection stops it too.
    :ivar count: read so many bytes that are no message instead.
    :ivar session: on which connection; each begins when it is first spoken on.
    """

    data: bytes | str
    until: bytes = b"Z"
    count: int = 0
    session: int = 0


@dataclass(frozen=True)
class Case:
    """
    One conversation.

    :ivar name: what is wrong in it.
    :ivar says: the turns; before them each session comes in, unless *outside* is set.
    :ivar outside: the conversation is about coming in.
    :ivar wal: compare also the WAL that is streamed.
    :ivar differs: why walsender answers otherwise on purpose.
    :ivar ours: what walsender answers then, as `brief` says it.
    :ivar differs_over: over WAL of which versions.
    """

    name: str
    says: tuple[Say, ...]
    outside: bool = False
    wal: bool = True
    differs: str = ""
    ours: str = ""
    differs_over: tuple[int, ...] = (16, 18)


def message(kind: str, body: bytes = b"") -> bytes:
    """Return a typed message."""
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def query(text: str | bytes) -> bytes:
    """Return a Query message."""
    return message("Q", (text.encode() if isinstance(text, str) else text) + b"\0")


def copy_data(body: bytes) -> bytes:
    """Return a CopyData message."""
    return message("d", body)


def places(archive: Archive) -> Mapping[str, LSN]:
    """
    Return the places in an archive of two timelines that conversations speak of.

    ``begin`` is the start of its second segment, ``late`` and ``fork`` are the start of the segment
    with the switch point and that point itself, ``before`` and ``after`` are a byte away from it,
    ``ahead`` is nearly a segment behind the archive's end, and ``far`` is where no WAL will be.
    """
    name = archive.segments()[1]
    begin = LSN(int(name[8:16], 16) << 32 | int(name[16:], 16) * SEGMENT_SIZE)
    fork = archive.switchpoint
    late = LSN(fork // SEGMENT_SIZE * SEGMENT_SIZE)
    return {
        "begin": begin,
        "late": late,
        "fork": fork,
        "before": LSN(fork - 1),
        "after": LSN(fork + 1),
        "ahead": LSN(archive.end + SEGMENT_SIZE - 1),
        "far": LSN(fork + (1 << 33)),
    }


def converse(server: HasPort, case: Case, where: Mapping[str, LSN]) -> list[Heard]:
    """Return what the server answers, turn by turn, and whether each connection is alive at the end."""
    heard: list[Heard] = []
    sessions: dict[int, RawConnection] = {}
    ended: set[int] = set()
    try:
        for say in case.says:
            if say.session not in sessions:
                sessions[say.session] = _connect(server, come_in=not case.outside)
            data = say.data
            if isinstance(data, str):
                data = query(data.format_map(where))
            answer = _turn(sessions[say.session], data, say)
            heard += answer
            if (END,) in answer:
                ended.add(say.session)
        for number, connection in sessions.items():
            if number not in ended:
                heard += [
                    ("still there?",),
                    *_turn(connection, query("SHOW wal_segment_size"), Say(b"", until=b"Z")),
                ]
        if not case.wal:
            heard = [one for one in heard if one[0] != "WAL"]
    finally:
        for connection in sessions.values():
            connection.__exit__(None, None, None)
    return heard


def _connect(server: HasPort, *, come_in: bool) -> RawConnection:
    connection = RawConnection("127.0.0.1", server.port)
    if come_in:
        connection.socket.sendall(startup_packet())
        assert connection.until(b"Z", b"E")[-1].kind == b"Z"
    return connection


def _turn(connection: RawConnection, data: bytes | str, say: Say) -> list[Heard]:
    assert isinstance(data, bytes), "places are filled in"
    messages: list[Message] = []
    try:
        connection.socket.sendall(data)
        if say.count:
            raw = connection.read_bytes(say.count)
            return [("bytes", raw)] if len(raw) == say.count else [("bytes", raw), (END,)]
        while (one := connection.read()) is not None:
            messages.append(one)
            if one.kind in say.until:
                return normalised(messages)
    except (ConnectionResetError, BrokenPipeError):
        pass  # it had not read all when it closed; what it said before that has been read by now
    return [*normalised(messages), (END,)]


def normalised(messages: Iterable[Message]) -> list[Heard]:
    """Return *messages* without what must differ between two servers."""
    told: list[Heard] = []
    wal: list[tuple[int, bytes]] = []
    parameters: list[str] = []
    for one in messages:
        if one.kind == b"S":
            parameters.append(one.body.split(b"\0")[0].decode())
            continue
        if parameters:
            told.append(("parameters", *sorted(parameters)))
            parameters = []
        if one.kind == b"d" and one.body[:1] == b"w":
            wal.append((struct.unpack_from("!Q", one.body, 1)[0], one.body[25:]))
            continue
        if wal:
            told.append(_stream(wal))
            wal = []
        told.append(_message(one))
    return [*told, _stream(wal)] if wal else told


def _stream(wal: list[tuple[int, bytes]]) -> Heard:
    """Return a run of XLogData as one."""
    start = end = wal[0][0]
    for begin, data in wal:
        assert begin == end, "WAL comes without gaps"
        end += len(data)
    digest = hashlib.sha256(b"".join(data for _, data in wal)).hexdigest()
    return ("WAL", str(LSN(start)), str(LSN(end)), digest)


def _message(one: Message) -> Heard:
    kind = one.kind.decode()
    if kind in "EN":
        fields = {letter: text for letter, text in one.fields().items() if letter in "SVCMDH"}
        fields["M"] = _FLUSHED.sub(r"\1 LSN", _PROCESS.sub("PID", fields["M"]))
        return (kind, tuple(fields.items()))
    if kind == "K":
        return (kind, len(one.body) - 4)
    if kind == "d" and one.body[:1] == b"k":
        return ("keepalive", one.body[17])
    if kind == "D":
        return (kind, one.body if len(one.body) > 1000 else tuple(one.values()))
    return (kind, one.body)


def brief(heard: Iterable[Heard]) -> str:
    """Return the kinds of all that was heard, and the texts of errors."""
    words = []
    for one in heard:
        if one[0] in {"E", "N"}:
            assert isinstance(one[1], tuple)
            fields = dict(one[1])
            words.append(f"{one[0]}({fields['S']} {fields['C']} {fields['M']})")
        else:
            words.append(str(one[0]))
    return " ".join(words)
