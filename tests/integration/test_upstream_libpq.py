"""`LibpqConnector` and PostgreSQL: connecting, asking, streaming, and every end."""

from __future__ import annotations

import gc
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_twisted
from real_upstream_helpers import TLS, Recorder, closing, open_sockets, silent_port, tls_in_front_of, wal_of
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from walsender.lsn import LSN, Geometry
from walsender.testing.archives import SEGMENT_SIZE, reference_server
from walsender.testing.postgres import Cluster, free_port, started
from walsender.testing.processes import conninfo, wait_until
from walsender.upstream import IUpstreamSession, UpstreamError
from walsender.upstream.libpq import LibpqConnector
from walsender.wal.segment import parse_file_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.archives import Archive
    from walsender.testing.installation import PostgresInstallation
    from walsender.upstream.socket_watch import IUpstreamReactor

GEOMETRY: Final = Geometry.contiguous(SEGMENT_SIZE)
_WRITE: Final = (
    "CREATE TABLE IF NOT EXISTS filling (payload text);"
    " INSERT INTO filling SELECT repeat(md5(i::text), 100) FROM generate_series(1, 3000) i"
)
_TERMINATE: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'"
_SECRET: Final = "not to be told"


@pytest.fixture
def reactor() -> IUpstreamReactor:
    """The reactor that these tests run in."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture(scope="session")
def primary(installation: PostgresInstallation, archive_space: Path) -> Iterator[Cluster]:
    """A running primary whose TCP port wants a password from the user *careful*."""
    cluster = Cluster.create(
        installation, archive_space / f"upstream-{installation.major}", settings={"wal_keep_size": "2GB"}
    )
    with started(cluster):
        cluster.sql(
            "SET password_encryption = 'scram-sha-256';"
            f" CREATE ROLE careful LOGIN REPLICATION PASSWORD '{_SECRET}'"
        )
        hba = cluster.data_directory / "pg_hba.conf"
        rules = ["local all all trust", "local replication all trust"]
        rules += ["host replication careful 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust"]
        hba.write_text("\n".join([*rules, "host replication all 127.0.0.1/32 trust", ""]))
        cluster.sql("SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture(autouse=True)
def no_descriptor_left(primary: Cluster) -> Iterator[None]:
    """Fail a test after which this process holds a socket that it did not hold before."""
    before = open_sockets()
    yield
    gc.collect()
    assert open_sockets() <= before


async def connected(reactor: IUpstreamReactor, text: str, **options: Any) -> IUpstreamSession:
    """Return an open session."""
    return await LibpqConnector(reactor, text, **options).connect()


async def refused(reactor: IUpstreamReactor, text: str) -> str:
    """Return why there is none, checked to be one line without a secret."""
    with pytest.raises(UpstreamError) as info:
        (await connected(reactor, text)).close()
    message = info.value.message
    assert "\n" not in message
    assert _SECRET not in message
    return message


async def nobody_else(primary: Cluster) -> None:
    """Wait until *primary* has noticed that the sessions of earlier tests are over."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
    await deferToThread(
        wait_until, lambda: primary.sql(sessions) == "0", 60, "all sessions to end", logs=[primary]
    )


async def row(session: IUpstreamSession, command: str) -> list[str]:
    """Return the one row of a result as text."""
    (values,) = await session.execute(command)
    return [(value or b"").decode() for value in values]


async def streaming(
    reactor: IUpstreamReactor, text: str, start: int, timeline: int = 1
) -> tuple[IUpstreamSession, Recorder]:
    """Return a session that streams from *start*, and what records it."""
    session = await connected(reactor, text)
    recorder = Recorder(start)
    assert await session.start_streaming(start_command(start, timeline), recorder)
    return session, recorder


def start_command(start: int, timeline: int = 1) -> str:
    """Return START_REPLICATION."""
    return f"START_REPLICATION PHYSICAL {LSN(start)} TIMELINE {timeline}"


def segment_start(lsn: int) -> int:
    """Return where the segment that holds *lsn* begins, at PostgreSQL's default size."""
    return lsn & ~0xFFFFFF


def first_position(archive: Archive) -> int:
    """Return where *archive* begins."""
    return GEOMETRY.segment_start(parse_file_name(archive.segments()[0], GEOMETRY).number(GEOMETRY))


def status(position: int) -> bytes:
    """Return a status update that has all before *position* flushed."""
    return b"r" + 3 * position.to_bytes(8, "big") + bytes(9)


@pytest_twisted.ensureDeferred
async def test_identify(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """A session answers commands one after the other, survives an error, and says where it leads."""
    session = await connected(reactor, primary.conninfo())

    async def ask() -> None:
        identity = await row(session, "IDENTIFY_SYSTEM")
        assert re.fullmatch(r"\d+", identity[0])
        assert identity[1] == "1"
        with pytest.raises(UpstreamError) as info:
            await session.execute("DROP_REPLICATION_SLOT missing")
        assert info.value.sqlstate == "42704"
        assert info.value.message == 'replication slot "missing" does not exist'
        slot = await row(session, "CREATE_REPLICATION_SLOT made TEMPORARY PHYSICAL RESERVE_WAL")
        assert slot[0] == "made"
        assert await session.execute("DROP_REPLICATION_SLOT made") == []
        assert session.server_version // 10000 == primary.installation.major
        assert session.description == f"host=127.0.0.1 port={primary.port}"

    await closing(session, ask())


@pytest.mark.parametrize(
    ("more", "name"),
    [({}, "walsender"), ({"application_name": "relay_1"}, "relay_1")],
    ids=["ours", "theirs"],
)
@pytest_twisted.ensureDeferred
async def test_applicationName(
    primary: Cluster, reactor: IUpstreamReactor, more: dict[str, str], name: str
) -> None:
    """The upstream sees a walreceiver of our name, unless the user has another, and what it reports."""
    await nobody_else(primary)
    start = segment_start(primary.flush_lsn())
    session, _ = await streaming(reactor, primary.conninfo(**more), start)

    async def look() -> None:
        session.send(status(start))
        query = "SELECT application_name, flush_lsn FROM pg_stat_replication WHERE flush_lsn IS NOT NULL"
        seen = await deferToThread(wait_until, lambda: primary.sql(query), 60, "a report", logs=[primary])
        assert seen == f"{name}|{LSN(start)}"

    await closing(session, look())


@pytest_twisted.ensureDeferred
async def test_environmentsName(
    primary: Cluster, reactor: IUpstreamReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGAPPNAME counts as the user's word."""
    await nobody_else(primary)
    monkeypatch.setenv("PGAPPNAME", "from_outside")
    session = await connected(reactor, primary.conninfo())
    query = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'walsender'"
    await closing(session, deferToThread(lambda: primary.sql(query) == "from_outside" or pytest.fail(query)))


@pytest_twisted.ensureDeferred
async def test_unixSocket(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """A directory as host is a unix socket."""
    text = conninfo(host=str(primary.socket_directory), port=str(primary.port), user="postgres")
    session = await connected(reactor, text)
    assert (await closing(session, row(session, "SHOW port"))) == [str(primary.port)]


@pytest_twisted.ensureDeferred
async def test_stream(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """What streams is what is in the files; after our CopyDone the session is at command level again."""
    start = segment_start(primary.flush_lsn())
    session, recorder = await streaming(reactor, primary.conninfo(), start)

    async def follow() -> None:
        await deferToThread(primary.sql, _WRITE)
        end = primary.flush_lsn()
        await recorder.until(lambda: recorder.position >= end, reactor)
        held = wal_of(primary.data_directory / "pg_wal", start, end)
        assert recorder.wal[: end - start] == held
        session.end_streaming()
        await recorder.until(lambda: bool(recorder.events), reactor)
        assert recorder.events == [("ended", [])]
        assert len(await row(session, "IDENTIFY_SYSTEM")) == 4

    await closing(session, follow())


@pytest_twisted.ensureDeferred
async def test_pause(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """A paused session delivers nothing, of what libpq holds neither; then all of it comes."""
    start = segment_start(primary.flush_lsn())
    primary.sql(_WRITE)
    end = primary.flush_lsn()
    session = await connected(reactor, primary.conninfo())
    recorder = Recorder(start)
    recorder.on_message = lambda body: session.pauseProducing() if body[:1] == b"w" else None
    assert await session.start_streaming(start_command(start), recorder)

    async def watch() -> None:
        for _ in range(20):
            await recorder.until(lambda: recorder.position > seen[-1], reactor)
            seen.append(recorder.position)
            await deferToThread(primary.sql, "SELECT 1")  # long enough for whatever would come
            assert recorder.position == seen[-1]
            session.resumeProducing()
        recorder.on_message = lambda _: None
        await recorder.until(lambda: recorder.position >= end, reactor)
        held = wal_of(primary.data_directory / "pg_wal", start, end)
        assert recorder.wal[: end - start] == held

    seen = [start]
    await closing(session, watch())


# Refused, and where else to go.


@pytest_twisted.ensureDeferred
async def test_password(primary: Cluster, reactor: IUpstreamReactor, tmp_path: Path) -> None:
    """Passwords come from the string or from a password file, which sees the host's *name*; none is told."""
    base = {"host": "localhost", "port": str(primary.port), "user": "careful"}
    session = await connected(reactor, conninfo(**base, password=_SECRET))
    assert await closing(session, row(session, "SHOW port")) == [str(primary.port)]

    passfile = tmp_path / "pgpass"
    passfile.write_text(f"localhost:{primary.port}:replication:careful:{_SECRET}\n")
    passfile.chmod(0o600)
    session = await connected(reactor, conninfo(**base, passfile=str(passfile)))
    assert await closing(session, row(session, "SHOW port")) == [str(primary.port)]

    message = await refused(reactor, conninfo(**base, password=_SECRET + "!"))
    assert message.endswith('failed: password authentication failed for user "careful"')
    message = await refused(reactor, conninfo(**base, passfile="/nowhere"))
    assert message.endswith("failed: fe_sendauth: no password supplied")


@pytest_twisted.ensureDeferred
async def test_nobodyThere(reactor: IUpstreamReactor) -> None:
    """One line names all hosts that refused."""
    ports = [free_port(), free_port()]
    message = await refused(reactor, f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]}")
    assert message == "; ".join(
        f'connection to server at "127.0.0.1", port {port} failed: Connection refused' for port in ports
    )
    assert (await refused(reactor, "host=/nowhere port=1")).endswith("failed: No such file or directory")
    message = await refused(reactor, "host=no.such.name.invalid")
    assert message == 'could not translate host name "no.such.name.invalid" to an address'


@pytest_twisted.ensureDeferred
async def test_nextHost(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """A host that refuses, and one that takes the connection and is silent, are passed over."""
    with silent_port() as silent:
        text = conninfo(
            host="localhost,127.0.0.1,localhost",
            port=f"{free_port()},{silent},{primary.port}",
            user="postgres",
            connect_timeout="1",
        )
        session = await connected(reactor, text)
        assert await closing(session, row(session, "SHOW port")) == [str(primary.port)]


@pytest.mark.parametrize("wanted", ["primary", "read-write"])
@pytest_twisted.ensureDeferred
async def test_targetSessionAttributes(
    primary: Cluster, reactor: IUpstreamReactor, space: Path, wanted: str
) -> None:
    """A standby first in the list is passed over when a primary is asked for, and the other way round."""
    backup = primary.base_backup(space / "backup")
    following = Cluster.standby(
        primary.installation, backup, space / "standby", primary_conninfo=primary.conninfo()
    )
    with started(following) as standby:
        await deferToThread(standby.wait_for_replay, primary.flush_lsn())
        both = {"host": "127.0.0.1,127.0.0.1", "user": "postgres"}
        for first, second, attributes, expected in [
            (standby, primary, wanted, primary),
            (primary, standby, "standby", standby),
        ]:
            text = conninfo(**both, port=f"{first.port},{second.port}", target_session_attrs=attributes)
            session = await connected(reactor, text)
            assert await closing(session, row(session, "SHOW port")) == [str(expected.port)]
        text = conninfo(
            host="127.0.0.1", port=str(standby.port), user="postgres", target_session_attrs=wanted
        )
        assert (await refused(reactor, text)).endswith(
            "session is read-only" if wanted == "read-write" else "server is in hot standby mode"
        )


@pytest_twisted.ensureDeferred
async def test_cancelled(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """An attempt may be cancelled before the first turn and later; a command too, which ends the session."""
    with silent_port() as silent:
        for text in (primary.conninfo(), conninfo(host="localhost", port=str(silent))):
            for turns in range(5):
                attempt = LibpqConnector(reactor, text).connect()
                for _ in range(turns):
                    await deferLater(reactor, 0)
                if attempt.called:
                    (await attempt).close()
                    continue
                attempt.cancel()
                with pytest.raises(CancelledError):
                    await attempt
    session = await connected(reactor, primary.conninfo())
    answer = session.execute("IDENTIFY_SYSTEM")
    answer.cancel()
    with pytest.raises(CancelledError):
        await answer
    with pytest.raises(UpstreamError):
        await session.execute("IDENTIFY_SYSTEM")


# The ends of a stream.


@pytest_twisted.ensureDeferred
async def test_closedWhileStreaming(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """A session that is closed from inside a message delivers no more, and the upstream is rid of it."""
    start = segment_start(primary.flush_lsn())
    primary.sql(_WRITE)
    session, recorder = await streaming(reactor, primary.conninfo(), start)
    closed: Deferred[None] = Deferred()

    def close(body: bytes) -> None:
        session.close()
        closed.callback(None)  # a second call would raise

    recorder.on_message = close
    await closed
    assert recorder.events == []
    await nobody_else(primary)


@pytest.mark.parametrize("end", ["kill", "terminate", "fast"])
@pytest_twisted.ensureDeferred
async def test_upstreamGone(primary: Cluster, reactor: IUpstreamReactor, space: Path, end: str) -> None:
    """However a server goes away, the receiver is told once, with the server's reason if there is one."""
    with started(Cluster.create(primary.installation, space / "data", name="doomed")) as doomed:
        session, recorder = await streaming(reactor, doomed.conninfo(), segment_start(doomed.flush_lsn()))
        idle = await connected(reactor, doomed.conninfo())
        recorder.on_message = lambda _: session.send(status(recorder.position))  # or it waits for us
        await recorder.until(lambda: len(recorder.wal) > 0, reactor)
        act = {
            "kill": doomed.kill,
            "terminate": lambda: doomed.sql(_TERMINATE),
            "fast": doomed.stop,
        }[end]
        await deferToThread(act)
        await recorder.until(lambda: bool(recorder.events), reactor)
        ((what, error),) = recorder.events
        assert what == "lost"
        expected = {
            "kill": ("", "server closed the connection unexpectedly"),
            "terminate": ("57P01", "terminating connection due to administrator command"),
            "fast": ("", "the upstream has ended the stream"),
        }[end]
        assert (error.sqlstate, error.message) == expected, error
        with pytest.raises(UpstreamError) as info:
            await idle.execute("IDENTIFY_SYSTEM")
        if end == "terminate":
            assert info.value.sqlstate == "57P01"  # said when nobody had asked


@pytest_twisted.ensureDeferred
async def test_errorInsideTheStream(gap: tuple[Archive, str], reactor: IUpstreamReactor, space: Path) -> None:
    """WAL that is no longer there ends the stream with PostgreSQL's error, after what is before it."""
    archive, missing = gap
    start = first_position(archive)
    with started(reference_server(archive, space / "reference")) as server:
        session, recorder = await streaming(reactor, server.conninfo(), start)
        await closing(session, recorder.until(lambda: bool(recorder.events), reactor))
    ((what, error),) = recorder.events
    assert (what, error.sqlstate) == ("lost", "58P01")
    assert error.message == f"requested WAL segment {missing} has already been removed"
    assert recorder.position == GEOMETRY.segment_start(parse_file_name(missing, GEOMETRY).number(GEOMETRY))


@pytest_twisted.ensureDeferred
async def test_endOfATimeline(fork: Archive, reactor: IUpstreamReactor, space: Path) -> None:
    """A historic timeline ends with where the next begins; at its very end there is no stream at all."""
    start = first_position(fork)
    with started(reference_server(fork, space / "reference")) as server:
        session, recorder = await streaming(reactor, server.conninfo(), start)

        async def follow() -> None:
            await recorder.until(lambda: bool(recorder.events), reactor)
            rows = [(b"2", str(fork.switchpoint).encode())]
            assert recorder.events == [("ended", rows)]
            assert recorder.position == fork.switchpoint
            again = Recorder(fork.switchpoint)
            assert not await session.start_streaming(start_command(fork.switchpoint), again)
            assert again.events == [("ended", rows)]
            name, content = (await session.execute("TIMELINE_HISTORY 2"))[0]
            assert name == b"00000002.history"
            assert content == (fork.directory / "00000002.history").read_bytes()
            assert await session.start_streaming(start_command(fork.switchpoint, 2), again)
            await again.until(lambda: again.position >= fork.end, reactor)

        await closing(session, follow())


# TLS.


@pytest_twisted.ensureDeferred
async def test_encryptedStream(primary: Cluster, reactor: IUpstreamReactor) -> None:
    """Under TLS nothing is left lying below libpq: a stream comes to its end, byte for byte."""
    start = segment_start(primary.flush_lsn())
    for _ in range(5):
        primary.sql(_WRITE)
    end = primary.flush_lsn()
    with tls_in_front_of(primary.port) as port:
        text = conninfo(
            host="localhost",
            port=str(port),
            user="careful",
            password=_SECRET,
            sslmode="verify-full",
            sslrootcert=str(TLS / "authority.pem"),
        )
        session, recorder = await streaming(reactor, text, start)

        async def follow() -> None:
            await recorder.until(lambda: recorder.position >= end, reactor)
            for _ in range(30):
                # Small ones too, one at a time: each must arrive without another behind it.
                await deferToThread(primary.sql, "SELECT pg_logical_emit_message(true, 'a', 'b')")
                now = primary.flush_lsn()
                await recorder.until(lambda: recorder.position >= now, reactor)  # noqa: B023
            held = wal_of(primary.data_directory / "pg_wal", start, now)
            assert recorder.wal[: now - start] == held

        await closing(session, follow())


@pytest_twisted.ensureDeferred
async def test_certificates(primary: Cluster, reactor: IUpstreamReactor, tmp_path: Path) -> None:
    """Certificates are judged by the host's name, though libpq is given an address."""
    with tls_in_front_of(primary.port) as port, ExitStack() as sessions:
        base = {"host": "localhost", "port": str(port), "user": "postgres"}
        good = str(TLS / "authority.pem")
        for mode, root in (("require", None), ("verify-ca", good), ("verify-full", good)):
            text = conninfo(**base, sslmode=mode, **({"sslrootcert": root} if root else {}))
            session = await connected(reactor, text)
            sessions.callback(session.close)
            assert len(await row(session, "IDENTIFY_SYSTEM")) == 4
        message = await refused(
            reactor, conninfo(**{**base, "host": "127.0.0.1"}, sslmode="verify-full", sslrootcert=good)
        )
        assert "does not match host name" in message
        message = await refused(
            reactor, conninfo(**base, sslmode="verify-ca", sslrootcert=str(TLS / "server.pem"))
        )
        assert "certificate verify failed" in message
    assert "does not support SSL" in await refused(reactor, primary.conninfo(sslmode="require"))
