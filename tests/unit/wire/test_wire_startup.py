"""What comes before a session: the rows of the tables in PostgreSQL's behaviour, seen on 15, 16 and 18."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets, strings, texts

from walsender.errors import (
    InvalidAuthorization,
    InvalidStartupParameter,
    ProtocolViolation,
    UnsupportedProtocol,
    WalsenderError,
)
from walsender.wire import (
    CancelRequest,
    FrontendBuffer,
    GSSENCRequest,
    InvalidPacketLength,
    InvalidStartupOptions,
    NegotiateProtocolVersion,
    ObsoleteProtocol,
    ReplicationMode,
    SilentViolation,
    SSLRequest,
    StartupMessage,
    StartupPacket,
    clean_application_name,
    decode_startup_packet,
    decode_text,
    encode_text,
    negotiate,
    parse_first_replication_mode,
    parse_options,
    parse_replication_mode,
    printable,
    unencrypted_data,
)

NO_TERMINATOR = "invalid startup packet layout: expected terminator as last byte"

# The start-up packet of a PostgreSQL 18 walreceiver, as it was on the wire.
WALRECEIVER = bytes.fromhex(
    "0000005a 00030000"
    "7573657200 706f73746772657300"  # user postgres
    "646174616261736500 7265706c69636174696f6e00"  # database replication
    "7265706c69636174696f6e00 7472756500"  # replication true
    "6170706c69636174696f6e5f6e616d6500 77616c726563656976657200"  # application_name walreceiver
    "00"
)


def packet(version: int, body: bytes = b"") -> bytes:
    """Return a packet without its length."""
    return struct.pack("!I", version) + body


def from_stream(data: bytes) -> StartupPacket:
    """Return what one packet, with its length, is."""
    buffer = FrontendBuffer()
    buffer.receive_data(data)
    taken = buffer.next_packet()
    assert taken is not None
    return decode_startup_packet(taken)


names = strings.map(lambda data: decode_text(data.replace(b"_pq_.", b"x") or b"n"))


class PacketTests(SynchronousTestCase):
    """What a packet is."""

    def test_encryptionRequests(self) -> None:
        """SSLRequest and GSSENCRequest, as libpq sends them."""
        self.assertEqual(from_stream(bytes.fromhex("00000008 04d2162f")), SSLRequest())
        self.assertEqual(from_stream(bytes.fromhex("00000008 04d21630")), GSSENCRequest())
        self.assertEqual(SSLRequest().encode(), bytes.fromhex("00000008 04d2162f"))
        self.assertEqual(GSSENCRequest().encode(), bytes.fromhex("00000008 04d21630"))

    def test_anSSLRequestMayBeLonger(self) -> None:
        """Trailing bytes within its length are not looked at, seen on 15 and 18."""
        self.assertEqual(decode_startup_packet(packet(80877103, b"junk")), SSLRequest())

    def test_aSecondEncryptionRequestIsAnUnknownVersion(self) -> None:
        """What was answered once falls through to the version check."""
        for code, minor in ((80877103, 5679), (80877104, 5680)):
            error = self.assertRaises(
                UnsupportedProtocol, decode_startup_packet, packet(code), ssl_done=True, gss_done=True
            )
            self.assertEqual(
                error.message, f"unsupported frontend protocol 1234.{minor}: server supports 3.0 to 3.2"
            )
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "0A000"))
            self.assertNotIsInstance(error, ObsoleteProtocol)

    def test_oneEncryptionRequestDoesNotForbidTheOther(self) -> None:
        """Each is honoured once."""
        self.assertEqual(decode_startup_packet(packet(80877104), ssl_done=True), GSSENCRequest())
        self.assertEqual(decode_startup_packet(packet(80877103), gss_done=True), SSLRequest())

    def test_cancelRequest(self) -> None:
        """Length, code, process id, key of 4 bytes in 3.0."""
        data = bytes.fromhex("00000010 04d2162e 000051b7 01020304")
        request = CancelRequest(20919, b"\1\2\3\4")
        self.assertEqual(from_stream(data), request)
        self.assertEqual(request.encode(), data)

    def test_cancelKeysHaveOneTo256Bytes(self) -> None:
        """Any other is ignored: the connection closes, and the client is told nothing."""
        for key in (b"x", bytes(256)):
            self.assertEqual(from_stream(CancelRequest(7, key).encode()), CancelRequest(7, key))
        for body in (b"", b"\0\0\0", b"\0\0\0\7", b"\0\0\0\7" + bytes(257)):
            error = self.assertRaises(InvalidPacketLength, decode_startup_packet, packet(80877102, body))
            self.assertIsInstance(error, SilentViolation)

    def test_obsoleteVersions(self) -> None:
        """What is before 3.0 must be told in the old format, seen on 15 and 18."""
        for version, text in ((0x20000, "2.0"), (0x10000, "1.0"), (0x2FFFF, "2.65535"), (1, "0.1")):
            error = self.assertRaises(ObsoleteProtocol, decode_startup_packet, packet(version))
            self.assertEqual(
                error.message, f"unsupported frontend protocol {text}: server supports 3.0 to 3.2"
            )

    def test_impossibleVersions(self) -> None:
        """0.0, 4 and more are told in the new format."""
        for version, text in ((0, "0.0"), (0x40000, "4.0"), (0xFFFFFFFF, "65535.65535")):
            error = self.assertRaises(UnsupportedProtocol, decode_startup_packet, packet(version))
            self.assertNotIsInstance(error, ObsoleteProtocol)
            self.assertEqual(
                error.message, f"unsupported frontend protocol {text}: server supports 3.0 to 3.2"
            )

    def test_unencryptedData(self) -> None:
        """Bytes behind an encryption request are an attack until shown otherwise."""
        for request, what in (
            (SSLRequest(), "SSL request"),
            (GSSENCRequest(), "GSSAPI encryption request"),
        ):
            error = unencrypted_data(request)
            self.assertEqual(error.message, f"received unencrypted data after {what}")
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "08P01"))
            self.assertIn("man-in-the-middle", error.detail or "")

    @given(octets(max_size=80))
    def test_anyPacketIsKnownOrATypedError(self, body: bytes) -> None:
        """Every packet of at least four bytes decodes, or raises an error of ours."""
        for code in (b"\0\3\0\0", b"\0\3\0\2", bytes.fromhex("04d2162e"), b""):
            with contextlib.suppress(WalsenderError):
                decode_startup_packet(code + body.ljust(4, b"\0"))


class StartupMessageTests(SynchronousTestCase):
    """The start-up packet proper."""

    def test_ofAWalreceiver(self) -> None:
        """The bytes of a PostgreSQL 18 walreceiver, both ways."""
        message = from_stream(WALRECEIVER)
        expected = StartupMessage(
            (3, 0),
            {
                "user": "postgres",
                "database": "replication",
                "replication": "true",
                "application_name": "walreceiver",
            },
        )
        self.assertEqual(message, expected)
        self.assertEqual(expected.encode(), WALRECEIVER)

    def test_wrongEnds(self) -> None:
        """The list must end with a NUL that is the packet's last byte."""
        for body in (
            b"",  # version only
            b"a",
            b"ab",
            b"ab\0",
            b"ab\0\0",  # a pair, no terminator
            b"user\0x\0",
            b"user\0x\0\0x",
            b"user\0x\0\0\0",
            b"\0\0",
            b"user\0x\0\0user\0y\0\0",
        ):
            error = self.assertRaises(ProtocolViolation, decode_startup_packet, packet(0x30000, body))
            self.assertEqual(error.message, NO_TERMINATOR)
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "08P01"))

    def test_theLastOfEqualNamesCounts(self) -> None:
        """As plain assignment would have it."""
        message = decode_startup_packet(packet(0x30000, b"user\0a\0x\0y\0user\0b\0\0"))
        self.assertEqual(message, StartupMessage((3, 0), {"user": "b", "x": "y"}))

    def test_extensionsAreNoParameters(self) -> None:
        """Names that begin with _pq_. are collected as they come, repeated ones too."""
        message = decode_startup_packet(packet(0x30000, b"_pq_.a\0001\0user\0u\0_pq_.b\0\0_pq_.a\0002\0\0"))
        self.assertEqual(message, StartupMessage((3, 0), {"user": "u"}, ("_pq_.a", "_pq_.b", "_pq_.a")))

    def test_userIsRequired(self) -> None:
        """Missing or empty."""
        for parameters in ({}, {"user": ""}):
            message = StartupMessage((3, 0), parameters)
            for name in ("user", "database"):
                error = self.assertRaises(InvalidAuthorization, getattr, message, name)
                self.assertEqual(error.message, "no PostgreSQL user name specified in startup packet")
                self.assertEqual((error.severity, error.sqlstate), ("FATAL", "28000"))

    def test_databaseDefaultsToTheUser(self) -> None:
        """Missing or empty."""
        self.assertEqual(StartupMessage((3, 0), {"user": "u"}).database, "u")
        self.assertEqual(StartupMessage((3, 0), {"user": "u", "database": ""}).database, "u")
        self.assertEqual(StartupMessage((3, 0), {"user": "u", "database": "d"}).database, "d")

    def test_namesAreCutTo63Bytes(self) -> None:
        """User and database, at a byte."""
        message = StartupMessage((3, 0), {"user": "x" * 62 + "ä", "database": "y" * 70})
        self.assertEqual(message.user, "x" * 62 + "\udcc3")
        self.assertEqual(message.database, "y" * 63)

    def test_whatCannotBeReadBackIsNotWritten(self) -> None:
        """An empty name would end the list; a NUL would end a string."""
        for parameters in ({"": "x"}, {"a\0": "x"}, {"a": "x\0"}):
            self.assertRaises(ValueError, StartupMessage((3, 0), parameters).encode)

    @given(
        st.integers(0, 65535),
        st.dictionaries(names, texts, max_size=4),
        st.lists(texts.map(lambda text: "_pq_." + text), max_size=3).map(tuple),
    )
    def test_roundTrip(self, minor: int, parameters: dict[str, str], extensions: tuple[str, ...]) -> None:
        """Any bytes but NUL are names and values, and come back."""
        message = StartupMessage((3, minor), parameters, extensions)
        self.assertEqual(from_stream(message.encode()), message)


class ReplicationModeTests(SynchronousTestCase):
    """The parameter ``replication``."""

    TRUE = ("true", "TRUE", "tRuE", "t", "tr", "tru", "yes", "y", "ye", "on", "ON", "1")
    FALSE = ("false", "f", "fal", "no", "n", "N", "off", "of", "OF", "0")
    WRONG = (
        *("", "o", "O", "2", "00", "01", "foo", "true ", " true", "truee", "yess", "onn", "offf"),
        *("DATABASE", "datab", "databases", "Database", "\u212a", "\uff54rue", "\udcff"),
    )

    def test_booleans(self) -> None:
        """Any unique prefix in any case."""
        for value in self.TRUE:
            self.assertIs(parse_replication_mode(value), ReplicationMode.PHYSICAL, value)
            self.assertIs(parse_first_replication_mode(value), ReplicationMode.PHYSICAL, value)
        for value in self.FALSE:
            self.assertIs(parse_replication_mode(value), ReplicationMode.NONE, value)
            self.assertIs(parse_first_replication_mode(value), ReplicationMode.NONE, value)

    def test_database(self) -> None:
        """Exactly that word."""
        self.assertIs(parse_replication_mode("database"), ReplicationMode.DATABASE)

    def test_errors(self) -> None:
        """FATAL 22023 with a hint."""
        for value in self.WRONG:
            error = self.assertRaises(InvalidStartupParameter, parse_replication_mode, value)
            self.assertEqual(error.message, f'invalid value for parameter "replication": "{value}"')
            self.assertEqual(error.hint, 'Valid values are: "false", 0, "true", 1, "database".')
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "22023"))

    def test_errorsOfTheFirstWalsender(self) -> None:
        """Its own text, no hint; ``database`` was none of its values."""
        for value in (*self.WRONG, "database"):
            error = self.assertRaises(InvalidStartupParameter, parse_first_replication_mode, value)
            self.assertEqual(error.message, 'invalid value for boolean option "replication"')
            self.assertIsNone(error.hint)
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "22023"))

    @given(st.text(max_size=8))
    def test_anyValueIsAModeOrAnError(self, value: str) -> None:
        """Never another exception."""
        for parse in (parse_replication_mode, parse_first_replication_mode):
            with contextlib.suppress(InvalidStartupParameter):
                self.assertIn(parse(value), ReplicationMode)


class NegotiateTests(SynchronousTestCase):
    """Minor versions: the answers of PostgreSQL 18."""

    def test_table(self) -> None:
        """Asked for; minor that is spoken; answer, if there is one."""
        for minor, extensions, spoken, answered in (
            (0, (), 0, False),
            (1, (), 0, False),
            (2, (), 2, False),
            (3, (), 2, True),
            (9999, (), 2, True),
            (65535, (), 2, True),
            (0, ("_pq_.foo",), 0, True),
            (1, ("_pq_.foo",), 0, True),
            (2, ("_pq_.foo",), 2, True),
            (9999, ("_pq_.test_protocol_negotiation", "_pq_.x"), 2, True),
        ):
            answer = NegotiateProtocolVersion((3, spoken), extensions) if answered else None
            self.assertEqual(negotiate((3, minor), extensions), (spoken, answer), minor)

    def test_greaseOfLibpq19(self) -> None:
        """It fails unless 3.2 and its made-up extension are named."""
        _, answer = negotiate((3, 9999), ("_pq_.test_protocol_negotiation",))
        assert answer is not None
        self.assertEqual(
            answer.encode(),
            bytes.fromhex("76 0000002b 00030002 00000001") + b"_pq_.test_protocol_negotiation\0",
        )


class ApplicationNameTests(SynchronousTestCase):
    """What is shown of an application_name."""

    def test_printableAsciiStays(self) -> None:
        """From blank to tilde."""
        name = bytes(range(0x20, 0x5F)).decode()
        self.assertEqual(clean_application_name(name, 180000), name)
        self.assertEqual(clean_application_name("_~", 150000), "_~")

    def test_otherBytes(self) -> None:
        """16 and later show their hexadecimal digits, earlier ones a question mark."""
        name = "a\x7f\tä\udcffz"
        for version in (160000, 180000):
            self.assertEqual(clean_application_name(name, version), "a\\x7f\\x09\\xc3\\xa4\\xffz")
        for version in (90300, 150018):
            self.assertEqual(clean_application_name(name, version), "a?????z")

    def test_isCutBeforeItIsCleaned(self) -> None:
        """63 bytes of what came, which may become more characters."""
        self.assertEqual(clean_application_name("x" * 64, 180000), "x" * 63)
        self.assertEqual(clean_application_name("x" * 62 + "ä", 180000), "x" * 62 + "\\xc3")


class OptionsTests(SynchronousTestCase):
    """The parameter ``options``; results seen on 18."""

    def test_forms(self) -> None:
        """All spellings of a setting."""
        for text in (
            "-c wal_sender_timeout=5s",
            "-cwal_sender_timeout=5s",
            "--wal_sender_timeout=5s",
            "--wal-sender-timeout=5s",
            " \t\n-c\v wal-sender-timeout=5s ",
            "-c wal_sender_timeout=5s --",
        ):
            self.assertEqual(parse_options(text), [("wal_sender_timeout", "5s")], text)

    def test_severalInOrder(self) -> None:
        """Also the same name again: whoever applies them lets the last win."""
        self.assertEqual(parse_options("-c a=1 --b-c=d-e -ca="), [("a", "1"), ("b_c", "d-e"), ("a", "")])

    def test_nothing(self) -> None:
        """Neither an empty text nor blanks say anything."""
        for text in ("", "  ", "--"):
            self.assertEqual(parse_options(text), [])

    def test_backslashes(self) -> None:
        """Protect blanks and themselves; one at the end is dropped."""
        self.assertEqual(parse_options(r"-c a=x\ y\\z\q"), [("a", r"x y\zq")])
        self.assertEqual(parse_options("-c a=x\\\ny"), [("a", "x\ny")])
        self.assertEqual(parse_options("-c a=\\"), [("a", "")])

    def test_anEmptyNameIsForTheSettingsToRefuse(self) -> None:
        """18 complains of an unrecognized configuration parameter "", as of any other."""
        self.assertEqual(parse_options("-c =3"), [("", "3")])

    def test_errors(self) -> None:
        """FATAL 42601, texts of 18."""
        refused = "invalid command-line argument for server process: "
        for text, message in (
            ("-c wal_sender_timeout", "-c wal_sender_timeout requires a value"),
            ("--wal-sender-timeout", "--wal-sender-timeout requires a value"),
            ("--help", "--help requires a value"),
            ("-c", refused + "-c"),
            ("foo", refused + "foo"),
            ("-z", refused + "-z"),
            ("-", refused + "-"),
            ("\\", refused),
            ("-c a=1 foo", refused + "foo"),
            ("-- foo", refused + "foo"),
            ("foo -z", refused + "-z"),
            ("- -c a", "-c a requires a value"),
            ("foo bar", refused + "foo"),
            ("-c a=5s -- x=y", refused + "x=y"),
        ):
            error = self.assertRaises(InvalidStartupOptions, parse_options, text)
            self.assertEqual(error.message, message)
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "42601"))

    @given(st.text(alphabet="-c= \\ab\n", max_size=12))
    def test_anyTextIsSettingsOrAnError(self, text: str) -> None:
        """Never another exception."""
        with contextlib.suppress(InvalidStartupOptions):
            parse_options(text)


class TextTests(SynchronousTestCase):
    """Bytes as text."""

    @given(octets(max_size=40))
    def test_anyBytesComeBack(self, data: bytes) -> None:
        """Also those that are no UTF-8."""
        self.assertEqual(encode_text(decode_text(data)), data)

    @given(octets(max_size=40))
    def test_whatIsPrintableIsOneLine(self, data: bytes) -> None:
        """And can be written to any log."""
        text = printable(decode_text(data))
        self.assertLessEqual(len(text.splitlines()), 1)
        text.encode("utf-8")

    def test_printableKeepsWhatCanBeRead(self) -> None:
        """Letters of any language stay; control characters and stray bytes are shown."""
        self.assertEqual(printable("Grün\n\udcff\x9b\u2028"), "Grün\\x0a\\xff\\x9b\\x2028")
