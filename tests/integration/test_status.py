"""What is told over HTTP by a real relay between a real primary and a real client."""

from __future__ import annotations

import http.client
import json
import re
import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, cast

import psycopg2
import psycopg2.extras
import pytest
from prometheus_client.parser import text_string_to_metric_families
from relay_helpers import make_primary, make_relay, wait_for_streaming
from twistd_helpers import make_wal

from walsender import __main__ as program
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import PgReceiveWal
from walsender.testing.processes import WalsenderProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HTTP = re.compile(r"metrics and health over HTTP on 127\.0\.0\.1:(\d+)")


def connect(server: WalsenderProcess) -> http.client.HTTPConnection:
    """Return a connection that stays open."""
    found = _HTTP.search(server.log_text())
    assert found is not None
    return http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)


def get(server: WalsenderProcess, path: str) -> tuple[int, str]:
    """Return status and body."""
    with closing(connect(server)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


class Site:
    """A primary, a relay that tells of itself, and a pg_receivewal with a slot behind it."""

    def __init__(self, stack: ExitStack, space: Path) -> None:
        installation = PostgresInstallation.embedded(18)
        self.primary = make_primary(stack, installation, space)
        self.relay = make_relay(
            stack, space, self.primary.conninfo(password="geheim"), "--http", "tcp:0:interface=127.0.0.1"
        )
        wait_for_streaming(self.relay, self.primary)
        upstream = self.relay.conninfo()
        copy = space / "copy"
        slot = ("--slot", "copy")
        made = PgReceiveWal(installation, copy, upstream, *slot, "--create-slot")
        with made:
            made.wait()
        self.client = stack.enter_context(PgReceiveWal(installation, copy, upstream, *slot, "--synchronous"))
        self.client.wait_for_start()

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        return get(self.relay, path)

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Return labels and values of all series by name."""
        status, text = self.get("/metrics")
        assert status == 200, text
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        return found

    def value(self, name: str) -> float:
        """Return the one value of a name."""
        ((_, value),) = self.metrics()[name]
        return value


@pytest.fixture
def site(archive_space: Path) -> Iterator[Site]:
    """What is looked at."""
    space = archive_space / "status"
    space.mkdir()
    PostgresInstallation.embedded(18).account.own(space)
    with ExitStack() as stack:
        yield Site(stack, space)


def test_fromTheFirstByteToTheEnd(site: Site) -> None:
    """Positions follow the primary, a slot holds back what its client has not; health is what it is."""
    before = site.value("walsender_sent_bytes_total")
    site.primary.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) n")
    end = int(site.primary.flush_lsn())

    def confirmed() -> bool:
        found = site.metrics().get("walsender_standby_lsn_bytes", [])
        return any(labels["position"] == "flush" and value >= end for labels, value in found)

    wait_until(confirmed, 60, "the client to confirm", logs=[site.relay])
    metrics = site.metrics()
    ((labels, _),) = metrics["pg_stat_replication_pg_current_wal_lsn_bytes"]
    assert (labels["application_name"], labels["client_addr"]) == ("pg_receivewal", "127.0.0.1")
    assert labels["state"] == "streaming"
    assert "pg_stat_replication_pg_wal_lsn_diff" not in metrics  # it replays nothing
    assert metrics["pg_replication_slots_active"] == [({"slot_name": "copy", "database": ""}, 1)]
    ((_, held_back),) = metrics["pg_replication_slots_pg_wal_lsn_diff"]
    assert 0 <= held_back < 1 << 20
    assert site.value("walsender_flush_lsn_bytes") >= end
    assert site.value("walsender_sent_bytes_total") - before > 1 << 20
    # Each commit has been flushed, and may have been in two files.
    received, flushed = (site.value(f"walsender_{what}_seconds_count") for what in ("receive", "fsync"))
    assert flushed >= received > 0
    assert site.value("walsender_receive_seconds_sum") > 0
    assert site.value("walsender_disk_silent_seconds") < 60
    ((labels, timeline),) = metrics["pg_stat_wal_receiver_received_tli"]
    assert (labels["upstream_host"], labels["status"], timeline) == ("127.0.0.1", "streaming", 1)
    wait_until(lambda: site.get("/readiness?lag=1kB")[0] == 200, 60, "the relay to be level")
    identifier = site.primary.sql("SELECT system_identifier FROM pg_control_system()")
    text = site.get("/status.json")[1]
    assert json.loads(text)["system_identifier"] == identifier
    assert "geheim" not in text + site.get("/metrics")[1]

    # Without its upstream it serves what it has.
    site.primary.stop("immediate")
    wait_until(lambda: site.get("/readiness")[0] == 503, 60, "the relay to miss its upstream")
    assert [site.get(path)[0] for path in ("/health", "/liveness")] == [200, 200]
    assert site.value("walsender_upstream_streaming") == 0
    refused = f'connection to server at "127.0.0.1", port {site.primary.port} failed: Connection refused'

    def reason() -> str | None:
        lost = json.loads(site.get("/health")[1]).get("not_receiving") or {}
        return cast("str | None", lost.get("error"))

    wait_until(lambda: reason() == refused, 60, "the relay to say why", logs=[site.relay])
    assert refused in site.relay.log_text()
    found = json.loads(site.get("/readiness")[1])
    assert found["reason"] == f"nothing is received from the upstream: {refused}"
    assert site.value("walsender_upstream_lost_time_seconds") == found["not_receiving"]["since"]
    assert [site.value(f"walsender_{name}") for name in ("healthy", "ready")] == [1, 0]

    # A client that stays does not hold up the end.
    with closing(connect(site.relay)) as connection:
        connection.request("GET", "/liveness")
        connection.getresponse().read()
        site.relay.signal(signal.SIGTERM)
        assert site.relay.wait() == 0
    assert "Traceback" not in site.relay.log_text()


def probe(server: WalsenderProcess) -> int:
    """Return the exit status of ``python -m walsender probe``."""
    found = _HTTP.search(server.log_text())
    assert found is not None
    return program.main(["probe", f"http://127.0.0.1:{found[1]}/health"])


def test_drain(archive_space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While the server drains, load balancers and probes are told so, and metrics are still there."""
    space = archive_space / "drain"
    space.mkdir()
    make_wal(space / "wal")
    options = ("--http", "tcp:0:interface=127.0.0.1")
    with WalsenderProcess(space / "wal", *options, log_file=space / "log") as server:
        standby = psycopg2.connect(
            server.conninfo(), connection_factory=psycopg2.extras.PhysicalReplicationConnection
        )
        with closing(standby):  # which confirms nothing
            standby.cursor().start_replication(start_lsn="0/100000")
            assert [get(server, path)[0] for path in ("/health", "/readiness")] == [200, 200]
            assert probe(server) == 0
            assert json.loads(capsys.readouterr().out) == {"ok": True}
            server.signal(signal.SIGUSR2)
            wait_until(lambda: get(server, "/health")[0] == 503, 60, "the drain to begin", logs=[server])
            found = [get(server, path)[0] for path in ("/readiness", "/liveness", "/metrics")]
            assert found == [503, 200, 200]
            assert probe(server) == 1
            assert json.loads(capsys.readouterr().out) == {"ok": False, "reason": "shutting down"}
        assert server.wait() == 0
        assert probe(server) == 1
        told = capsys.readouterr().err
        assert told.endswith("/health: Connection refused; is the server started with --http?\n")
