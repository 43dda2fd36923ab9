"""What can be said wrongly to a walsender, as conversations; each is one row of docs/protocol-support.md."""

from __future__ import annotations

import struct
from typing import Any, Final

from comparison_helpers import Case, Say, copy_data, message, query

from walsender.testing.raw_client import startup_packet

_SSL: Final = bytes.fromhex("00000008 04d2162f")
_GSS: Final = bytes.fromhex("00000008 04d21630")
_CANCEL: Final = bytes.fromhex("00000010 04d2162e 7fffffff 12345678")
_IN: Final = "R parameters K Z still there? T D C Z"
_RANGE: Final = (
    'R E(FATAL 22023 -1 ms is outside the valid range for parameter "wal_sender_timeout"'
    " (0 ms .. 2147483647 ms)) still there? end of connection"
)
_NO_SESSIONS: Final = (
    "E(FATAL 0A000 walsender serves physical replication connections only) still there? end of connection"
)
_MORE: Final = f"v {_IN}"
_OLD_FORMAT: Final = "bytes end of connection"
_OF_OURS: Final = "protocol 3.2 is spoken over WAL of every version"


def _packet(code: int, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(body) + 8, code) + body


def _differs(ours: str, why: str, *versions: int) -> dict[str, Any]:
    """Say that walsender answers otherwise on purpose, over WAL of these versions or (none) of all."""
    return {"differs": why, "ours": ours, **({"differs_over": versions} if versions else {})}


def _unsupported(version: str) -> dict[str, Any]:
    """Say that the error names the protocol versions that are spoken here."""
    text = f"unsupported frontend protocol {version}: server supports 3.0 to 3.2"
    raw = "bytes " if version == "1234.5679" else ""
    return _differs(f"{raw}E(FATAL 0A000 {text}) still there? end of connection", _OF_OURS, 16)


def _outside(name: str, *packets: bytes | Say, **more: Any) -> Case:
    says = tuple(one if isinstance(one, Say) else Say(one, b"ZE") for one in packets)
    return Case(name, says, outside=True, **more)


def _commands(name: str, *texts: str | bytes, **more: Any) -> Case:
    return Case(name, tuple(Say(text) for text in texts), **more)


_UNITS: Final = _differs(_RANGE, "units are told as since 17", 16)
_NEGOTIATED: Final = _differs(_MORE, _OF_OURS, 16)

#: Sections 1.1 to 1.6 of the protocol: from the first byte to the first ReadyForQuery.
STARTUP: Final = (
    _outside("length of 7", bytes.fromhex("00000007")),
    _outside("length of 10005", bytes.fromhex("00002715")),
    _outside("longest length", struct.pack("!II", 10004, 3 << 16) + bytes(9996)),
    _outside("negative length", bytes.fromhex("ffffffff")),
    _outside("an HTTP request", b"GET / HTTP/1.1\r\n\r\n"),
    _outside("TLS without a request", bytes.fromhex("16030100 c8010000 c4030300")),
    _outside("declined encryption", Say(_SSL, count=1), Say(_GSS, count=1), startup_packet()),
    _outside("the other way round", Say(_GSS, count=1), Say(_SSL, count=1), startup_packet()),
    _outside("an SSL request twice", Say(_SSL, count=1), _SSL, **_unsupported("1234.5679")),
    _outside(
        "a long SSL request", Say(bytes.fromhex("0000000c 04d2162f 00000000"), count=1), startup_packet()
    ),
    _outside("bytes behind an SSL request", Say(_SSL + startup_packet(), count=1), b""),
    _outside("bytes behind a GSSAPI request", Say(_GSS + startup_packet(), count=1), b""),
    _outside("cancel request for nobody", _CANCEL),
    _outside("cancel request without key", bytes.fromhex("0000000c 04d2162e 7fffffff")),
    _outside("protocol 3.0", startup_packet()),
    _outside("protocol 3.1", startup_packet((3 << 16) + 1), **_differs(_IN, _OF_OURS, 16)),
    _outside("protocol 3.2", startup_packet((3 << 16) + 2), **_differs(_IN, _OF_OURS, 16)),
    _outside(
        "protocol 3.3",
        startup_packet((3 << 16) + 3),
        **_NEGOTIATED,
    ),
    _outside(
        "protocol 3.9999",
        startup_packet((3 << 16) + 9999),
        **_NEGOTIATED,
    ),
    _outside("protocol 3.0 with an extension", startup_packet(**{"_pq_.foo": "1"})),
    _outside(
        "protocol 3.9999 with extensions",
        startup_packet((3 << 16) + 9999, **{"_pq_.foo": "1", "_pq_.bar": ""}),
        **_NEGOTIATED,
    ),
    _outside("protocol 2.0", Say(_packet(2 << 16), count=1000), **_differs(_OLD_FORMAT, _OF_OURS, 16)),
    _outside("protocol 1.0", Say(_packet(1 << 16), count=1000), **_differs(_OLD_FORMAT, _OF_OURS, 16)),
    _outside("protocol 0.0", _packet(0), **_unsupported("0.0")),
    _outside("protocol 4.0", _packet(4 << 16), **_unsupported("4.0")),
    _outside("protocol 4.0 with parameters", startup_packet(4 << 16), **_unsupported("4.0")),
    _outside("no terminator", _packet(3 << 16, b"user\0postgres\0")),
    _outside("no parameters at all", _packet(3 << 16)),
    _outside("bytes behind the terminator", _packet(3 << 16, b"user\0postgres\0\0x")),
    _outside("name without value", _packet(3 << 16, b"user\0postgres\0replication\0")),
    _outside("no user", _packet(3 << 16, b"replication\0true\0\0")),
    _outside("empty user", startup_packet(user="")),
    _outside("any database", startup_packet(database="nonesuch")),
    _outside(
        "equal names", _packet(3 << 16, b"user\0x\0user\0postgres\0replication\0off\0replication\0on\0\0")
    ),
    _outside(
        "bad one of equal names",
        _packet(3 << 16, b"user\0postgres\0replication\0x\0replication\0on\0\0"),
        **_differs(_IN, "of equal names only the last is looked at"),
    ),
    _outside("unknown parameter", startup_packet(nonsense="1")),
    _outside("impossible client_encoding", startup_packet(client_encoding="NOSUCH")),
    _outside("parameter that cannot be set", startup_packet(server_version="9")),
    _outside("impossible wal_sender_timeout", startup_packet(wal_sender_timeout="soon")),
    _outside(
        "wal_sender_timeout out of range",
        startup_packet(wal_sender_timeout="-1"),
        **_differs(_RANGE, "units as since 17", 16),
    ),
    _outside("options", startup_packet(options="-c wal_sender_timeout=5s --application-name=a\\ b")),
    _outside("unknown parameter in options", startup_packet(options="-c nonsense=1")),
    _outside("options without value", startup_packet(options="-c wal_sender_timeout")),
    _outside("options that are none", startup_packet(options="nonsense")),
    _outside("unknown switch in options", startup_packet(options="-x")),
    _outside("long application_name", startup_packet(application_name="x" * 70)),
    _outside("application_name beyond ASCII", startup_packet(application_name="é\n")),
    *(
        _outside(f"replication={value!r}", startup_packet(replication=value))
        for value in ("t", "tr", "TRUE", "y", "Yes", "on", "1")
    ),
    *(
        _outside(f"replication={value!r}", startup_packet(replication=value, database="postgres"))
        for value in ("false", "off")
    ),
    _outside(
        "replication='database'",
        startup_packet(replication="database", database="postgres"),
        **_differs(_NO_SESSIONS, "there is no database here"),
    ),
    *(
        _outside(f"replication={value!r}", startup_packet(replication=value))
        for value in ("", "2", "o", "foo", "true ", "DATABASE", "datab")
    ),
)

_NO_BACKUP: Final = "walsender cannot take a base backup"
_DRIVERS: Final = "drivers set parameters on any connection"
_ALIVE: Final = " still there? T D C Z"


def _refused(text: str) -> str:
    return f"E(ERROR 0A000 {text}) Z{_ALIVE}"


_PARSE: Final = message("P", b"\0SELECT 1\0\0\0")
_BIND: Final = message("B", bytes(8))
_SYNC: Final = message("S")
_LOGICAL: Final = "there are no catalogs here; the hint says where they are"
_NO_FILES: Final = "there are no data files here; the hint says where to take a backup"

#: Sections 3.1 to 3.3: messages and the grammar.
MESSAGES: Final = (
    Case("query without NUL", (Say(message("Q", b"IDENTIFY_SYSTEM")),)),
    Case("empty query body", (Say(message("Q")),)),
    Case("bytes behind the NUL", (Say(message("Q", b"SHOW wal_segment_size\0x")),)),
    Case(
        "pipelined queries",
        (Say(query("SHOW wal_segment_size") + query("mistake")), Say(b"")),
    ),
    Case(
        "extended query", (Say(_PARSE + _BIND + message("D", b"S\0") + message("E", bytes(5)) + _SYNC, b"Z"),)
    ),
    Case("query before Sync", (Say(_PARSE + query("SHOW wal_segment_size") + _SYNC),)),
    Case("close", (Say(message("C", b"S\0") + _SYNC),)),
    Case("function call", (Say(message("F", bytes(10))),)),
    Case("lone Sync", (Say(_SYNC),)),
    Case("lone Flush", (Say(message("H") + _SYNC),)),
    Case("messages of COPY", (Say(copy_data(b"x") + message("c") + message("f", b"why\0") + _SYNC),)),
    Case("unknown type", (Say(message("z")),)),
    Case("password afterwards", (Say(message("p", b"secret\0")),)),
    Case("zero as type", (Say(bytes(5)),)),
    Case("terminate", (Say(message("X")),)),
    Case("length of 3", (Say(b"Q\0\0\0\3"),)),
    Case("short message of 20000", (Say(b"S" + struct.pack("!I", 20000)),)),
    Case("negative length of message", (Say(b"Q\xff\xff\xff\xff"),)),
    _commands("SQL", "SELECT 1"),
    _commands("empty text", ""),
    _commands("lower case", "identify_system"),
    _commands("comment", "-- IDENTIFY_SYSTEM"),
    _commands("other comment", "/* x */ IDENTIFY_SYSTEM"),
    _commands("comment behind", "SHOW wal_segment_size -- x"),
    _commands("semicolon", "SHOW wal_segment_size;"),
    _commands("two semicolons", "SHOW wal_segment_size;;"),
    _commands("words behind", "IDENTIFY_SYSTEM now"),
    _commands("unterminated string", "BASE_BACKUP (LABEL 'x"),
    _commands("unterminated name", 'SHOW "x'),
    _commands("long name", f'READ_REPLICATION_SLOT "{"x" * 70}"'),
    _commands("bytes beyond ASCII", "SHOW é"),
    _commands("SHOW in capitals", "SHOW WAL_SEGMENT_SIZE"),
    _commands("SHOW of nothing known", "SHOW nonsense"),
    _commands("SHOW of two parts", "SHOW nonsense.nonsense"),
    _commands("SHOW without name", "SHOW"),
    _commands("SHOW of a string", "SHOW 'wal_segment_size'"),
    _commands("timeline 0", "TIMELINE_HISTORY 0"),
    _commands("timeline that overflows", "TIMELINE_HISTORY 4294967296"),
    _commands("negative timeline", "TIMELINE_HISTORY -1"),
    _commands("no timeline", "TIMELINE_HISTORY"),
    _commands("history", "TIMELINE_HISTORY 2"),
    _commands("no history file", "TIMELINE_HISTORY 9"),
    _commands("no history file of the first", "TIMELINE_HISTORY 1"),
    _commands("position without slash", "START_REPLICATION 1"),
    _commands("position of other letters", "START_REPLICATION 0/G"),
    _commands("position in quotes", "START_REPLICATION '0/1'"),
    _commands("no position", "START_REPLICATION"),
    _commands("start on timeline 0", "START_REPLICATION {begin} TIMELINE 0"),
    _commands("slot in single quotes", "START_REPLICATION SLOT 'a' {begin}"),
    _commands("keyword as slot", "START_REPLICATION SLOT PHYSICAL {begin}"),
    _commands("name of a keyword as slot", "START_REPLICATION SLOT physical {begin}"),
    _commands("ALTER_REPLICATION_SLOT", "ALTER_REPLICATION_SLOT nobody (FAILOVER)"),
    _commands("ALTER_REPLICATION_SLOT without options", "ALTER_REPLICATION_SLOT nobody ()"),
    _commands("base backup in old words", "BASE_BACKUP LABEL 'x' FAST"),
    _commands("unknown option of base backup", "BASE_BACKUP (NONSENSE)"),
    _commands("option of base backup twice", "BASE_BACKUP (LABEL 'a', LABEL 'b')"),
    _commands("wrong option value of base backup", "BASE_BACKUP (PROGRESS 2)"),
    _commands("empty options of base backup", "BASE_BACKUP ()"),
    Case(
        "UPLOAD_MANIFEST", (Say("UPLOAD_MANIFEST", b"ZG"),), **_differs(_refused(_NO_BACKUP), _NO_FILES, 18)
    ),
    # Not a whole one: it would write WAL.
    _commands("base backup", "BASE_BACKUP (TARGET 'nonsense')", **_differs(_refused(_NO_BACKUP), _NO_FILES)),
    _commands(
        "logical slot",
        "CREATE_REPLICATION_SLOT a LOGICAL pgoutput",
        **_differs(_refused("logical replication slots are not supported by walsender"), _LOGICAL),
    ),
    _commands(
        "logical replication",
        "START_REPLICATION SLOT a LOGICAL {begin}",
        **_differs(_refused("logical replication is not supported by walsender"), _LOGICAL),
    ),
    _commands("SET", "SET datestyle TO 'ISO'", **_differs(f"C Z{_ALIVE}", _DRIVERS)),
)


#: Section 3.5 and 4: where a stream may begin.
STARTS: Final = (
    _commands("unknown timeline", "START_REPLICATION {begin} TIMELINE 9"),
    _commands("behind the fork", "START_REPLICATION {after} TIMELINE 1"),
    _commands("far ahead", "START_REPLICATION {far} TIMELINE 2"),
    _commands("far ahead without timeline", "START_REPLICATION {far}"),
    Case(
        "a little ahead",
        (Say("START_REPLICATION {ahead}", b"WE"), Say(message("c"))),
        **_differs("W c C C Z" + _ALIVE, "a start that is at most a segment ahead is held"),
    ),
    _commands("at the fork", "START_REPLICATION {fork} TIMELINE 1"),
    _commands("unknown slot", "START_REPLICATION SLOT nobody {begin}"),
    _commands("empty slot name", 'START_REPLICATION SLOT "" {begin}'),
    _commands("unknown slot on unknown timeline", "START_REPLICATION SLOT nobody {begin} TIMELINE 9"),
    Case(
        "to the end of a timeline",
        (Say("START_REPLICATION {late} TIMELINE 1", b"c"), Say(message("c")), Say("TIMELINE_HISTORY 2")),
    ),
    Case(
        "late reports after our CopyDone",
        (
            Say("START_REPLICATION {late} TIMELINE 1", b"c"),
            Say(copy_data(b"r" + bytes(33)) + copy_data(b"h" + bytes(24)) + message("c")),
        ),
    ),
    Case(
        "one byte up to the fork",
        (Say("START_REPLICATION {before} TIMELINE 1", b"c"), Say(message("c"))),
    ),
    Case(
        "messages of COPY after an error inside it",
        (Say("START_REPLICATION {far}"), Say(copy_data(b"r" + bytes(33)) + message("c") + _SYNC)),
    ),
)


def _streaming(name: str, data: bytes, until: bytes = b"Z", **more: Any) -> Case:
    """Say something at the end of timeline 1, where no more WAL comes until the client has said CopyDone."""
    says = (Say("START_REPLICATION {late} TIMELINE 1", b"c"), Say(data, until))
    return Case(name, says, **more)


#: Section 3.5, below its table: what a standby must not say while WAL streams.
STREAMS: Final = (
    *(
        _streaming(f"type {kind} inside COPY", message(kind, body))
        for kind, body in (("Q", b"SHOW x\0"), ("S", b""), ("H", b""), ("f", b"x\0"), ("P", b""), ("z", b""))
    ),
    _streaming("unknown report", copy_data(b"x" + bytes(8))),
    _streaming("status request of version 19", copy_data(b"p" + bytes(8))),
    _streaming("empty report", copy_data(b"")),
    _streaming("short status", copy_data(b"r" + bytes(20))),
    _streaming("short feedback", copy_data(b"h" + bytes(20))),
    _streaming("long status", copy_data(b"r" + bytes(40)) + message("c")),
    _streaming("absurd feedback", copy_data(b"h" + b"\x7f" * 24) + message("c")),
    _streaming(
        "reply requested after the end",
        copy_data(b"r" + bytes(32) + b"\1") + message("c"),
        **_differs("W WAL c T D C C Z" + _ALIVE, "nothing is sent in COPY behind our CopyDone"),
    ),
    Case(
        "silence",
        (
            Say(startup_packet(wal_sender_timeout="500ms")),
            Say("START_REPLICATION {late}", b""),
        ),
        outside=True,
        wal=False,
    ),
    _streaming("long length inside COPY", b"d" + struct.pack("!I", 1 << 31)),
    _streaming("length of 3 inside COPY", b"d\0\0\0\3"),
    _streaming("terminate inside COPY", message("X")),
)

#: Session and command, in order; both servers have places for three slots.
_SLOTS: Final = (
    (0, "CREATE_REPLICATION_SLOT a PHYSICAL"),
    (0, "READ_REPLICATION_SLOT a"),
    (0, "READ_REPLICATION_SLOT nobody"),
    (0, "CREATE_REPLICATION_SLOT a PHYSICAL"),
    (0, 'CREATE_REPLICATION_SLOT "a" TEMPORARY PHYSICAL'),
    (0, 'CREATE_REPLICATION_SLOT "A-1" PHYSICAL'),
    (0, 'CREATE_REPLICATION_SLOT "../a" PHYSICAL'),
    (0, 'CREATE_REPLICATION_SLOT "" PHYSICAL'),
    (0, "CREATE_REPLICATION_SLOT 'a' PHYSICAL"),
    (0, "CREATE_REPLICATION_SLOT b TEMPORARY PHYSICAL (RESERVE_WAL)"),
    (1, "START_REPLICATION SLOT b 0/0"),
    (1, "DROP_REPLICATION_SLOT b"),
    (1, "CREATE_REPLICATION_SLOT c PHYSICAL RESERVE_WAL"),
    (1, "CREATE_REPLICATION_SLOT c PHYSICAL (RESERVE_WAL, RESERVE_WAL)"),
    (1, "CREATE_REPLICATION_SLOT c PHYSICAL (RESERVE_WAL 0)"),
    (1, "CREATE_REPLICATION_SLOT d PHYSICAL"),
    (0, "DROP_REPLICATION_SLOT b"),
    (0, "DROP_REPLICATION_SLOT b"),
    (0, "DROP_REPLICATION_SLOT b WAIT"),
    (1, "CREATE_REPLICATION_SLOT b TEMPORARY PHYSICAL"),
    (1, "mistake"),
    (1, "READ_REPLICATION_SLOT b"),
    (0, "START_REPLICATION SLOT nobody 0/0"),
    (0, 'START_REPLICATION SLOT "" 0/0'),
    (0, "START_REPLICATION SLOT nobody 0/0 TIMELINE 9"),
    (0, "START_REPLICATION SLOT a 0/0 TIMELINE 9"),
    (1, "DROP_REPLICATION_SLOT a WAIT"),
    (1, "READ_REPLICATION_SLOT a"),
    (0, "ALTER_REPLICATION_SLOT c (FAILOVER)"),
    (0, "ALTER_REPLICATION_SLOT nobody (FAILOVER)"),
    (0, "ALTER_REPLICATION_SLOT c (NONSENSE)"),
    (0, "DROP_REPLICATION_SLOT c"),
)

#: Replication slots, in two sessions.
SLOTS: Final = (Case("slots", tuple(Say(text, session=number) for number, text in _SLOTS)),)
