"""
What a client says before it is a session: encryption and cancel requests, the start-up packet.

These packets have no type byte.  `FrontendBuffer.next_packet` frames them,
`decode_startup_packet` says what they are; nothing here answers.
"""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from walsender.errors import (
    InvalidAuthorization,
    InvalidStartupParameter,
    ProtocolViolation,
    UnsupportedProtocol,
)
from walsender.wire.backend import NegotiateProtocolVersion
from walsender.wire.body import cut_name, decode_text, encode_string, encode_text
from walsender.wire.errors import InvalidPacketLength, InvalidStartupOptions, ObsoleteProtocol

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER: Final = struct.Struct("!IHH")
_VERSION: Final = struct.Struct("!HH")
_PROCESS_ID: Final = struct.Struct("!i")
_CANCEL_KEY_AT: Final = _VERSION.size + _PROCESS_ID.size

_CANCEL_REQUEST: Final = (1234, 5678)
_SSL_REQUEST: Final = (1234, 5679)
_GSSENC_REQUEST: Final = (1234, 5680)

MAJOR: Final = 3
LATEST_MINOR: Final = 2
MAX_CANCEL_KEY: Final = 256
"""Longest key of a CancelRequest, in bytes."""

_EXTENSION_PREFIX: Final = "_pq_."
_PRINTABLE_ASCII: Final = range(0x20, 0x7F)
_HEX_IN_NAMES_SINCE: Final = 160000


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """Int32 8, Int32 80877103: may we encrypt?  The answer is one byte, ``S`` or ``N``."""

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        return _packet(_SSL_REQUEST, b"")


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """Int32 8, Int32 80877104: may we encrypt with GSSAPI?  The answer is one byte, ``G`` or ``N``."""

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        return _packet(_GSSENC_REQUEST, b"")


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Int32 length, Int32 80877102, Int32 process id, key: end what that session does.  Never answered."""

    process_id: int
    key: bytes

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        return _packet(_CANCEL_REQUEST, _PROCESS_ID.pack(self.process_id) + self.key)


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """
    Int32 length, Int16 major, Int16 minor, pairs of Strings, NUL: the session that the client wants.

    :ivar version: major (always 3) and minor.
    :ivar parameters: by name, without protocol extensions; of equal names the last counts.
    :ivar extensions: names of protocol extensions (``_pq_.…``) as they came, repeated ones too.
    """

    version: tuple[int, int] = (MAJOR, 0)
    parameters: Mapping[str, str] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """
        The role's name, cut to the length of a name.

        :raises InvalidAuthorization: there is none (FATAL 28000).
        """
        user = cut_name(self.parameters.get("user", ""))
        if not user:
            raise InvalidAuthorization("no PostgreSQL user name specified in startup packet")
        return user

    @property
    def database(self) -> str:
        """The database's name, cut to the length of a name; the user's if the client gave none."""
        return cut_name(self.parameters.get("database", "")) or self.user

    def encode(self) -> bytes:
        """
        Return the packet's bytes.

        :raises ValueError: a name is empty (it would end the list), or a NUL is in a name or value.
        """
        pairs = [*self.parameters.items(), *((name, "") for name in self.extensions)]
        if not all(name for name, _ in pairs):
            raise ValueError("a start-up parameter needs a name")
        body = b"".join(encode_string(name) + encode_string(value) for name, value in pairs)
        return _packet(self.version, body + b"\0")


StartupPacket: TypeAlias = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


def _packet(version: tuple[int, int], body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), *version) + body


def decode_startup_packet(packet: bytes, *, ssl_done: bool = False, gss_done: bool = False) -> StartupPacket:
    """
    Return what *packet* asks for.

    :param packet: from `FrontendBuffer.next_packet`, at least four bytes.
    :param ssl_done: an SSLRequest was answered already; a second is an unknown protocol version.
    :param gss_done: the same of a GSSENCRequest.
    :raises ObsoleteProtocol: a version before 3.0; answer with `old_format_error`.
    :raises UnsupportedProtocol: a version after 3 (FATAL 0A000).
    :raises InvalidPacketLength: a CancelRequest without a possible key; close, answer nothing.
    :raises ProtocolViolation: the parameters do not end where the packet ends (FATAL 08P01).

    Source: PostgreSQL, src/backend/tcop/backend_startup.c, ProcessStartupPacket.
    """
    version: tuple[int, int] = _VERSION.unpack_from(packet)
    if version == _CANCEL_REQUEST:
        return _decode_cancel_request(packet)
    if version == _SSL_REQUEST and not ssl_done:
        return SSLRequest()
    if version == _GSSENC_REQUEST and not gss_done:
        return GSSENCRequest()
    major, minor = version
    if major != MAJOR:
        # PostgreSQL writes the old format for every version below 3 but 0.0,
        # which is its own mark of "no version read yet" (seen on 18).
        error = ObsoleteProtocol if (0, 0) < version < (MAJOR, 0) else UnsupportedProtocol
        raise error(
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to {MAJOR}.{LATEST_MINOR}"
        )
    return _decode_startup_message(version, packet)


def _decode_cancel_request(packet: bytes) -> CancelRequest:
    key = packet[_CANCEL_KEY_AT:]
    if not 1 <= len(key) <= MAX_CANCEL_KEY:
        raise InvalidPacketLength("invalid length of cancel request packet")
    return CancelRequest(_PROCESS_ID.unpack_from(packet, _VERSION.size)[0], key)


def _decode_startup_message(version: tuple[int, int], packet: bytes) -> StartupMessage:
    *strings, tail = packet[_VERSION.size :].split(b"\0")
    # What the loop sees of a good packet: name, value, …, name, value, "" and
    # behind the last NUL nothing.
    parameters: dict[str, str] = {}
    extensions: list[str] = []
    pairs = iter(strings)
    ended = False
    for name in pairs:
        if not name:
            ended = next(pairs, None) is None and not tail
            break
        value = next(pairs, None)
        if value is None:
            break
        text = decode_text(name)
        if text.startswith(_EXTENSION_PREFIX):
            extensions.append(text)
        else:
            parameters[text] = decode_text(value)
    if not ended:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    return StartupMessage(version, parameters, tuple(extensions))


def unencrypted_data(request: SSLRequest | GSSENCRequest) -> ProtocolViolation:
    """
    Return the error for bytes that came behind an encryption request (FATAL 08P01).

    They were sent before the answer was known, so somebody may have put them
    there who could not have written into the encrypted stream.
    """
    what = "SSL request" if isinstance(request, SSLRequest) else "GSSAPI encryption request"
    return ProtocolViolation(
        f"received unencrypted data after {what}",
        detail=(
            "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
        ),
    )


class ReplicationMode(enum.Enum):
    """What the start-up parameter ``replication`` asks for."""

    NONE = enum.auto()  # an ordinary session
    PHYSICAL = enum.auto()
    DATABASE = enum.auto()  # a walsender that could also decode and run SQL


def _parse_boolean(value: str) -> bool | None:
    """Return what *value* means, by the rules of PostgreSQL's bool.c: any unique prefix, any case."""
    if value in {"0", "1"}:
        return value == "1"
    folded = value.lower()
    if folded and folded != "o":  # which could become either
        for word in ("true", "yes", "on"):
            if word.startswith(folded):
                return True
        for word in ("false", "no", "off"):
            if word.startswith(folded):
                return False
    return None


def parse_replication_mode(value: str) -> ReplicationMode:
    """
    Return what the start-up parameter ``replication=value`` asks for.

    :raises InvalidStartupParameter: neither a boolean nor exactly ``database`` (FATAL 22023).
    """
    if value == "database":
        return ReplicationMode.DATABASE
    wanted = _parse_boolean(value)
    if wanted is None:
        raise InvalidStartupParameter(
            f'invalid value for parameter "replication": "{value}"',
            hint='Valid values are: "false", 0, "true", 1, "database".',
        )
    return ReplicationMode.PHYSICAL if wanted else ReplicationMode.NONE


def parse_first_replication_mode(value: str) -> ReplicationMode:
    """
    Return what ``replication=value`` asked of the first walsenders: a boolean, nothing else.

    :raises InvalidStartupParameter: no boolean (FATAL 22023).
    """
    wanted = _parse_boolean(value)
    if wanted is None:
        raise InvalidStartupParameter('invalid value for boolean option "replication"')
    return ReplicationMode.PHYSICAL if wanted else ReplicationMode.NONE


def negotiate(
    requested: tuple[int, int], extensions: tuple[str, ...]
) -> tuple[int, NegotiateProtocolVersion | None]:
    """
    Return the minor version to speak, and what to send first if that is not all that was asked for.

    PostgreSQL sends it after it has judged the packet's layout and its ``replication``,
    and before it misses a user (seen on 18).

    We speak 3.0 and 3.2.  3.1 never existed: who asks for it gets 3.0, and is not
    told, as by PostgreSQL 18; a client would refuse a message that names 3.1.
    libpq's deliberate 3.9999 gets 3.2 and the list of its made-up extensions.

    :param requested: of a `StartupMessage`; the major is 3.
    :param extensions: all that were asked for: we know none.
    """
    minor = LATEST_MINOR if requested[1] >= LATEST_MINOR else 0
    if requested[1] > LATEST_MINOR or extensions:
        return minor, NegotiateProtocolVersion((MAJOR, minor), extensions)
    return minor, None


def clean_application_name(value: str, version: int) -> str:
    r"""
    Return *value* as PostgreSQL would show it: cut to 63 bytes, printable ASCII only.

    :param version: of the server that we are, such as 180000: 16 and later write
        ``\xHH`` for any other byte, earlier ones ``?``.

    Source: PostgreSQL, src/common/string.c, pg_clean_ascii.
    """
    substitute = "\\x{:02x}" if version >= _HEX_IN_NAMES_SINCE else "?"
    name = encode_text(cut_name(value))
    return "".join(chr(byte) if byte in _PRINTABLE_ASCII else substitute.format(byte) for byte in name)


# isspace() in C's locale.
_WORD: Final = re.compile(r"(?:[^ \t\n\v\f\r\\]|\\.|\\\Z)+", re.DOTALL)


def _setting(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidStartupOptions(f"{flag}{text} requires a value")
    return name.replace("-", "_"), value


def _no_argument(word: str) -> InvalidStartupOptions:
    return InvalidStartupOptions(
        f"invalid command-line argument for server process: {word}",
        hint='Try "postgres --help" for more information.',
    )


def parse_options(text: str) -> list[tuple[str, str]]:
    """
    Return the settings in the start-up parameter ``options``, names and values in order.

    ``-c name=value``, ``-cname=value`` and ``--name=value`` are understood; a backslash
    protects the next character; in a name ``-`` means ``_``.  The other switches of
    ``postgres`` mean nothing to a walsender and are refused.

    :raises InvalidStartupOptions: anything else (FATAL 42601).

    Source: PostgreSQL, src/backend/utils/init/postinit.c, process_startup_options;
    src/backend/tcop/postgres.c, process_postgres_switches.
    """
    words = [re.sub(r"\\(.?)", r"\1", match[0], flags=re.DOTALL) for match in _WORD.finditer(text)]
    settings = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":  # what follows is no option
            others += rest
        elif word.startswith("--"):
            settings.append(_setting("--", word[2:]))
        elif word.startswith("-c") and (argument := word[2:] or next(rest, None)) is not None:
            settings.append(_setting("-c ", argument))
        elif word.startswith("-") and word != "-":
            raise _no_argument(word)
        else:
            others.append(word)
    # getopt puts what is no option last, so that a wrong option is reported before it.
    if others:
        raise _no_argument(others[0])
    return settings
