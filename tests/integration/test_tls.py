"""TLS on a real twistd: asked for and at once, what must not be believed, files that change, streams."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
from twistd_helpers import WITHOUT_PRIVILEGES, Refusals, Twistd, make_wal, small_place

from walsender.lsn import LSN
from walsender.testing.certificates import Authority
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import PROTOCOL_3_0, RawConnection, startup_packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.wal_maker import WalMaker

SSL_REQUEST = struct.pack("!IHH", 8, 1234, 5679)
GSS_REQUEST = struct.pack("!IHH", 8, 1234, 5680)
NAME_LENGTH = 24
ATTACK = (
    "received unencrypted data after SSL request",
    "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
)


class Place(NamedTuple):
    """A server's files."""

    directory: Path
    authority: Authority
    wal: WalMaker

    def options(self) -> list[str]:
        """Return what twistd needs to be told."""
        return [
            *("--ssl", "on", "--ssl-cert-file", str(self.directory / "server.crt")),
            *("--ssl-key-file", str(self.directory / "server.key")),
        ]

    @property
    def segments(self) -> list[Path]:
        """The files with WAL, in order."""
        return sorted(path for path in (self.directory / "wal").iterdir() if len(path.name) == NAME_LENGTH)

    @property
    def begin(self) -> int:
        """Where WAL begins."""
        name = self.segments[0].name
        return int(name[8:16], 16) << 32 | int(name[16:], 16) * self.wal.segment_size

    def serve(self, *options: str) -> WalsenderProcess:
        """Return a server."""
        return WalsenderProcess(
            self.directory / "wal", *self.options(), *options, log_file=self.directory / "walsender.log"
        )


@pytest.fixture
def place() -> Iterator[Place]:
    """A directory with WAL and a certificate in it."""
    with small_place() as path:
        wal = make_wal(path / "wal", 3.5)
        authority = Authority(path)
        authority.issue("localhost", "server")
        yield Place(path, authority, wal)


@pytest.fixture
def server(place: Place) -> Iterator[WalsenderProcess]:
    """A server that encrypts."""
    with place.serve() as process:
        yield process
        assert "Traceback" not in process.log_text(), process.log_text()


def context(authority: Authority | None = None, *, alpn: str | None = "postgresql") -> ssl.SSLContext:
    """Return how a client encrypts."""
    made = ssl.create_default_context(cafile=None if authority is None else authority.path)
    made.check_hostname = False
    if authority is None:
        made.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    return made


def asked(server: WalsenderProcess, more: bytes = b"", made: ssl.SSLContext | None = None) -> RawConnection:
    """Return a connection that is encrypted after an SSLRequest; *more* is sent behind that, in the open."""
    client = RawConnection(server.host, server.port)
    client.socket.sendall(SSL_REQUEST + more)
    assert client.read_bytes(1) == b"S"
    client.encrypt(made or context())
    return client


def direct(server: WalsenderProcess, made: ssl.SSLContext | None = None) -> RawConnection:
    """Return a connection that is encrypted from its first byte."""
    client = RawConnection(server.host, server.port)
    client.encrypt(made or context())
    return client


def logged(server: WalsenderProcess, text: str) -> None:
    """Wait until *text* is in the log."""
    wait_until(lambda: text in server.log_text(), 60, f"{text!r} in the log", logs=[server])


def identify(client: RawConnection) -> list[bytes]:
    """Start a session and return the kinds of what it says."""
    client.socket.sendall(startup_packet())
    client.until(b"Z", b"E")
    return [message.kind for message in client.query("IDENTIFY_SYSTEM")]


def test_askedFor(server: WalsenderProcess) -> None:
    """A client that asks is told yes and served; with our protocol's name or none in the handshake."""
    for alpn in ("postgresql", None):
        with asked(server, made=context(alpn=alpn)) as client:
            assert client.socket.selected_alpn_protocol() == alpn
            assert identify(client) == [b"T", b"D", b"C", b"Z"]


def test_atOnce(server: WalsenderProcess) -> None:
    """So is one that begins with the handshake, cut at any byte."""
    with direct(server) as client:
        assert identify(client) == [b"T", b"D", b"C", b"Z"]
    with RawConnection(server.host, server.port) as client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context().wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in outgoing.read():
            client.socket.sendall(bytes([byte]))
        is_done = False
        while not is_done:
            incoming.write(client.socket.recv(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):  # a part of the answer
                session.do_handshake()
                is_done = True
        assert session.selected_alpn_protocol() == "postgresql"


def test_requestsInside(server: WalsenderProcess) -> None:
    """Inside there is nothing more to ask for; who began at once may ask, and is told no."""
    for request, code in ((SSL_REQUEST, 5679), (GSS_REQUEST, 5680)):
        with asked(server) as client:
            client.socket.sendall(request)
            (error,) = client.until()
            assert error.fields()["M"].startswith(f"unsupported frontend protocol 1234.{code}:")
        with direct(server) as client:
            client.socket.sendall(request)
            assert client.read_bytes(1) == b"N"
            client.socket.sendall(startup_packet())
            assert client.until(b"Z")[-1].kind == b"Z"


def test_gssFirst(server: WalsenderProcess) -> None:
    """Who is told no about GSSAPI may ask for TLS."""
    with RawConnection(server.host, server.port) as client:
        client.socket.sendall(GSS_REQUEST)
        assert client.read_bytes(1) == b"N"
        client.socket.sendall(SSL_REQUEST)
        assert client.read_bytes(1) == b"S"
        client.encrypt(context())
        assert identify(client)[-1] == b"Z"


def test_bytesInBetween(server: WalsenderProcess) -> None:
    """What came in the open behind the request is thrown away and told of (CVE-2021-23214)."""
    for more in (startup_packet(), b"x"):
        with asked(server, more) as client:
            (error,) = client.until()
            fields = error.fields()
            assert (fields["S"], fields["C"], fields["M"], fields["D"]) == ("FATAL", "08P01", *ATTACK)
    logged(server, ATTACK[0])


def test_noHandshake(server: WalsenderProcess) -> None:
    """What is no handshake costs one line and the connection, and nobody else."""
    with asked(server) as other:
        for garbage in (startup_packet(), b"\0" * 100, b"GET / HTTP/1.0\r\n\r\n"):
            with RawConnection(server.host, server.port) as client:
                client.socket.sendall(SSL_REQUEST)
                assert client.read_bytes(1) == b"S"
                client.socket.sendall(garbage)
                client.read_bytes(1 << 10)
        with RawConnection(server.host, server.port) as client:
            client.socket.sendall(SSL_REQUEST)
            client.read_bytes(1)
        logged(server, "could not accept SSL connection: EOF detected")
        refused = "could not accept SSL connection: "
        wait_until(lambda: server.log_text().count(refused) >= 4, 60, "all to be told of", logs=[server])
        assert server.log_text().count(refused) == 4
        assert identify(other)[-1] == b"Z"


def test_otherProtocols(server: WalsenderProcess) -> None:
    """A client of another protocol is sent away by the handshake; at once ours must be named."""
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        asked(server, made=context(alpn="http/1.1"))
    logged(server, "could not accept SSL connection: no application protocol")
    with direct(server, context(alpn=None)) as client:
        client.socket.sendall(startup_packet())
        assert client.until() == []
    logged(server, "received direct SSL connection request without ALPN protocol negotiation extension")


def test_versions(place: Place) -> None:
    """Versions before the oldest permitted are refused; there is no renegotiation and no compression."""
    with place.serve("--ssl-min-protocol-version", "tlsv1.3") as server:
        made = context()
        with asked(server, made=made) as client:
            assert client.socket.version() == "TLSv1.3"
            assert client.socket.compression() is None
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            asked(server, made=made)
        logged(server, "could not accept SSL connection: unsupported protocol")


def test_unixSocket(place: Place) -> None:
    """On a unix socket, which nobody else can listen to, there is no TLS."""
    path, wal = place.directory / "socket", place.directory / "wal"
    with (
        Twistd(
            place.directory, ["walsender", "-D", wal, "-l", f"unix:{path}", *place.options()], strict=False
        ),
        socket.socket(socket.AF_UNIX) as asking,
        socket.socket(socket.AF_UNIX) as beginning,
    ):
        asking.settimeout(60)
        asking.connect(str(path))
        asking.sendall(SSL_REQUEST)
        assert asking.recv(10) == b"N"
        beginning.settimeout(60)
        beginning.connect(str(path))
        beginning.sendall(bytes.fromhex("16030100 c8010000 c4030300"))
        assert beginning.recv(10) == b""


def test_silence(place: Place) -> None:
    """Who does not shake hands has as much time as who says nothing at all."""
    with place.serve("--authentication-timeout", "5s") as server:
        with RawConnection(server.host, server.port) as client, asked(server) as inside:
            client.socket.sendall(SSL_REQUEST)
            assert client.read_bytes(1) == b"S"
            with contextlib.suppress(ConnectionResetError):
                assert client.read_bytes(1) == b""
            with contextlib.suppress(ConnectionResetError):
                assert inside.until() == []
        logged(server, "canceling authentication due to timeout")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_stopInHandshake(place: Place, number: signal.Signals) -> None:
    """A stop waits for nobody who does not shake hands, has been refused, or says nothing."""
    with place.serve("--wal-sender-shutdown-timeout", "1h") as server:
        with (
            RawConnection(server.host, server.port) as asking,
            RawConnection(server.host, server.port) as beginning,
            RawConnection(server.host, server.port) as silent,
            asked(server) as refused,
            asked(server) as inside,
        ):
            asking.socket.sendall(SSL_REQUEST)
            assert asking.read_bytes(1) == b"S"
            beginning.socket.sendall(bytes.fromhex("16030100 c8010000 c4030300"))
            refused.socket.sendall(b"\0\0\0\7")
            assert identify(inside) == [b"T", b"D", b"C", b"Z"]
            server.signal(number)
            for client in asking, beginning, silent:
                with contextlib.suppress(ConnectionResetError):
                    assert client.read_bytes(1) == b""
            assert inside.until()[-1].fields()["C"] == "57P01"
        assert server.wait() == 0
        log = server.log_text()
    assert "clients have not read" not in log
    assert log.count("terminating connection due to administrator command") == 1  # which waits
    assert "Traceback" not in log


def stream(client: RawConnection, start: int, end: int) -> bytes:
    """Return WAL from *start* on, up to *end* at least."""
    client.send(b"Q", f"START_REPLICATION {LSN(start)}\0".encode())
    received = bytearray()
    while start + len(received) < end:
        message = client.read()
        assert message is not None
        assert message.kind in b"Wd", message
        if message.kind == b"d" and message.body[:1] == b"w":
            assert struct.unpack_from("!Q", message.body, 1)[0] == start + len(received)
            received += message.body[25:]
    return bytes(received)


def test_stream(place: Place, server: WalsenderProcess) -> None:
    """WAL comes through TLS as it is in the files, and a stop ends it in good order."""
    wal = place.wal
    content = b"".join(path.read_bytes() for path in place.segments)
    with asked(server) as client:
        client.socket.sendall(startup_packet())
        client.until(b"Z")
        received = stream(client, place.begin, wal.position)
        assert received == content[: len(received)]
        server.signal(signal.SIGTERM)
        assert [message.kind for message in client.until()][-1] == b"C"
        # A close_notify came, or there would have been an error.
    assert server.wait() == 0, server.log_tail()


def test_clientGone(place: Place, server: WalsenderProcess) -> None:
    """A standby that goes in the midst of things, with or without a word, is one line."""
    for polite, text in ((True, "unexpected EOF on standby connection"), (False, "could not receive data")):
        with asked(server) as client:
            client.socket.sendall(startup_packet())
            client.until(b"Z")
            stream(client, place.begin, place.wal.position)
            if polite:
                client.socket.unwrap()
            else:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        logged(server, text)


def test_reload(place: Place, server: WalsenderProcess) -> None:
    """SIGHUP: later connections see the new certificate, who is there stays; a bad file changes nothing."""
    other = Authority(place.directory, "other")
    with asked(server, made=context(place.authority)) as before:
        assert identify(before)[-1] == b"Z"
        other.issue("localhost", "server")
        server.signal(signal.SIGHUP)

        def renewed() -> bool:
            try:
                asked(server, made=context(other)).__exit__(None, None, None)
            except ssl.SSLError:
                return False
            return True

        wait_until(renewed, 60, "the new certificate", logs=[server])
        (place.directory / "server.key").write_text("nonsense")
        server.signal(signal.SIGHUP)
        key = place.directory / "server.key"
        logged(server, f'SSL configuration was not reloaded: could not load private key file "{key}"')
        assert renewed()
        assert identify_again(before) == [b"T", b"D", b"C", b"Z"]
    with RawConnection(server.host, server.port) as client:
        client.socket.sendall(startup_packet(PROTOCOL_3_0))
        assert client.until(b"Z")[-1].kind == b"Z"


def test_oddCertificate(place: Place) -> None:
    """A client whose certificate makes no sense, or was revoked, costs one line and the connection."""
    certificate, key = place.authority.issue("standby\0.example.com", "odd")
    good, revoked = (place.authority.issue(name) for name in ("good", "revoked"))
    options = ("--ssl-ca-file", str(place.authority.path))
    with place.serve(*options, "--ssl-crl-file", str(place.authority.revoke(revoked[0]))) as server:
        made = context()
        made.load_cert_chain(certificate, key)
        with asked(server, made=made) as client, contextlib.suppress(ConnectionError, ssl.SSLError):
            client.socket.sendall(startup_packet())
            assert client.until() == []
        logged(server, "SSL certificate's common name contains embedded null")
        made = context()
        made.load_cert_chain(*revoked)
        with contextlib.suppress(ConnectionError, ssl.SSLError), asked(server, made=made) as client:
            client.socket.sendall(startup_packet())
            assert client.until() == []
        logged(server, "could not accept SSL connection: certificate verify failed")
        made = context()
        made.load_cert_chain(*good)
        for known in (context(), made):
            with asked(server, made=known) as client:
                assert identify(client)[-1] == b"Z"
        assert "Traceback" not in server.log_text(), server.log_text()


def identify_again(client: RawConnection) -> list[bytes]:
    """Return the kinds of a further answer."""
    return [message.kind for message in client.query("IDENTIFY_SYSTEM")]


def test_badFiles(place: Place) -> None:
    """A start with files that cannot be used ends with one line."""
    key = place.directory / "server.key"
    key.chmod(0o644)
    options = ["-D", str(place.directory / "wal"), *place.options()]
    refused = Refusals(place.directory, options, WITHOUT_PRIVILEGES if os.geteuid() == 0 else "")
    assert "Traceback" not in refused.logs + refused.foreground[2]
    (line,) = refused.foreground[2].splitlines()
    assert f'private key file "{key}" has group or world access' in line
    assert (refused.foreground[0], refused.daemon[0]) == (1, 1)
    assert refused.left == []
