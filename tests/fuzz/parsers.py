"""
Every parser of what a client sends, as a function of bytes that may raise `WalsenderError` and nothing else.

`TARGETS` is what the fuzzer and the tests of this folder go through.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING, Final

from walsender.auth import load_hba, load_ident, load_userlist
from walsender.auth.regex import InvalidRegex, compile_regex
from walsender.auth.scram import ScramExchange, derive_verifier
from walsender.errors import WalsenderError
from walsender.sender.parameters import SessionParameters
from walsender.testing.source import ScriptedSource
from walsender.wire import (
    COMMAND_MESSAGES,
    COPY_MESSAGES,
    PASSWORD_MESSAGES,
    SASL_MESSAGES,
    CancelRequest,
    FrontendBuffer,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    clean_application_name,
    decode_startup_packet,
    decode_text,
    negotiate,
    parse_command,
    parse_first_dialect_query,
    parse_options,
    parse_replication_mode,
)
from walsender.wire.dialect import ModernDialect, dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSIONS: Final = (90300, 90400, 90600, 100000, 110000, 130000, 140000, 150000, 170000, 180000, 190000)
RULES: Final = (COMMAND_MESSAGES, COPY_MESSAGES, PASSWORD_MESSAGES, SASL_MESSAGES)


def _split(data: bytes, count: int) -> tuple[int, bytes]:
    """Return a choice of *count* that the first byte makes, and the rest."""
    return (data[0] if data else 0) % count, data[1:]


def command(data: bytes) -> None:
    """The replication grammar; the first byte chooses the version."""
    choice, text = _split(data, len(VERSIONS))
    parse_command(text, VERSIONS[choice])


def first_command(data: bytes) -> None:
    """The commands of the dialect 8.5."""
    parse_first_dialect_query(data)


def startup_options(data: bytes) -> None:
    """The start-up parameter ``options``."""
    for name, value in parse_options(decode_text(data)):
        assert isinstance(name, str) and isinstance(value, str)  # noqa: PT018


def startup_packet(data: bytes) -> None:
    """A packet before authentication; what comes out of a good one encodes to one of the same meaning."""
    choice, body = _split(data, 4)
    if len(body) < 4:
        return
    packet = decode_startup_packet(body, ssl_done=bool(choice & 1), gss_done=bool(choice & 2))
    if isinstance(packet, StartupMessage):
        with contextlib.suppress(WalsenderError):
            assert packet.user, "a user without a name"
            assert packet.database, "a database without a name"
        parse_replication_mode(packet.parameters.get("replication", "0"))
        negotiate(packet.version, packet.extensions)
        clean_application_name(packet.parameters.get("application_name", ""), 180000).encode("ascii")
        assert decode_startup_packet(packet.encode()[4:]).parameters == packet.parameters  # type: ignore[union-attr]
    else:
        assert isinstance(packet, (SSLRequest, GSSENCRequest, CancelRequest))


def _messages(data: bytes, choice: int, step: int) -> tuple[list[str], int]:
    """Return what a buffer makes of *data* in reads of *step*, and the most that it kept."""
    buffer, found, kept = FrontendBuffer(), [], 0
    for at in range(0, len(data), step):
        buffer.receive_data(data[at : at + step])
        while True:
            kept = max(kept, buffer.pending)
            before = buffer.pending
            try:
                message = buffer.next_message(RULES[choice])
            except WalsenderError as error:
                found.append(f"{type(error).__name__}: {error.message}")
                if buffer.pending == before:  # refused: the connection ends
                    return found, kept
            else:
                if message is None:
                    break
                found.append(repr(message))
    return found, kept


def framing(data: bytes) -> None:
    """Messages with types; whole and byte by byte must agree."""
    choice, stream = _split(data, len(RULES))
    whole, _ = _messages(stream, choice, 1 << 20)
    parts, _ = _messages(stream, choice, 1)
    assert whole == parts, f"{whole} is not {parts}"


def packets(data: bytes) -> None:
    """Packets without types: never more is kept than the longest and one read."""
    buffer = FrontendBuffer()
    for at in range(0, len(data), 512):
        buffer.receive_data(data[at : at + 512])
        while buffer.next_packet() is not None:
            pass
        assert buffer.pending <= 10_004 + 512


def standby(data: bytes) -> None:
    """What a standby reports while WAL streams; the first byte chooses the version."""
    versions = (90100, 90200, *VERSIONS)
    choice, body = _split(data, len(versions))
    dialect_of(versions[choice], "little").decode_standby(body)


_VERIFIER: Final = derive_verifier(b"secret", b"salt", 1)
_SOURCE: Final = ScriptedSource(1 << 21)


def parameters(data: bytes) -> None:
    """Settings of a session, at the start and later: name, NUL, value."""
    choice, rest = _split(data, len(VERSIONS))
    name, _, value = decode_text(rest).partition("\0")
    session = SessionParameters(
        ModernDialect(VERSIONS[choice]),
        _SOURCE,
        "user",
        max_wal_senders=10,
        max_replication_slots=10,
        wal_sender_timeout=60,
    )
    for deed in (session.set_at_start, session.set):
        with contextlib.suppress(WalsenderError):
            deed(name, value)
    with contextlib.suppress(WalsenderError):
        session.reset(name)
    session.show(name)


def scram(data: bytes) -> None:
    """Two SCRAM messages, cut at the first NUL; nobody comes in who has not the password."""
    choice, rest = _split(data, 4)
    end_point = b"\x01" * 32 if choice & 1 else None
    exchange = ScramExchange(_VERIFIER, end_point=end_point, new_nonce=lambda: b"nonce")
    exchange.select(exchange.mechanisms[choice // 2 % len(exchange.mechanisms)].encode())
    for message in rest.split(b"\0", 1):
        step = exchange.receive(message)
        assert step is None or not step.done, "let in without the password"


def regex(data: bytes) -> None:
    """A regular expression of an access file, searched in the longest name that a client can give."""
    try:
        pattern = compile_regex(decode_text(data))
    except InvalidRegex:
        return
    for name in ("a" * 63, "ab" * 31, "\udcff" * 63):
        pattern.search(name)


def _file(data: bytes, load: Callable[[str], object]) -> None:
    if b"include" in data or b"@" in data:
        return  # what is included is read from this machine
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        load(file.name)


def hba(data: bytes) -> None:
    """A ``pg_hba.conf``: any bytes are rules, or an error that names lines."""
    _file(data, load_hba)


def ident(data: bytes) -> None:
    """A ``pg_ident.conf``."""
    _file(data, load_ident)


def userlist(data: bytes) -> None:
    """An ``auth_file``."""
    _file(data, load_userlist)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        command,
        first_command,
        startup_options,
        startup_packet,
        framing,
        packets,
        standby,
        parameters,
        scram,
        regex,
        hba,
        ident,
        userlist,
    )
}


def run(target: str, data: bytes) -> bool:
    """Run one target; return whether the input was good.  What comes out but `WalsenderError` is a find."""
    try:
        TARGETS[target](data)
    except WalsenderError:
        return False
    return True
