"""Requests and answers, and how much of them: whole conversations over HTTP, without a network."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace
from typing import Any

from site_helpers import LOCAL, Client, SiteTestCase
from status_helpers import END, RECEIVING
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from walsender.errors import ConfigurationError
from walsender.lsn import LSN
from walsender.status.health import parse_lag
from walsender.status.site import REQUEST_TIMEOUT, StatusSite
from walsender.upstream import NotReceiving


class HealthTests(SiteTestCase):
    """Patroni's names, with their meaning."""

    def test_directory(self) -> None:
        """A server of a directory is healthy and ready when there is WAL, and alive in any case."""
        for ready, expected in ((True, 200), (False, 503)):
            self.watched.source.ready = ready
            found = [self.status(path) for path in ("/health", "/readiness", "/liveness")]
            self.assertEqual([expected, expected, 200], found)

    def test_stopping(self) -> None:
        """Who ends is alive, and neither healthy nor ready."""
        self.stopping = True
        found = [self.status(path) for path in ("/health", "/readiness", "/liveness")]
        self.assertEqual([503, 503, 200], found)

    def test_relayWithoutUpstream(self) -> None:
        """A relay that receives nothing serves what it has: healthy, not ready."""
        self.watched.upstream = "host=primary"
        self.assertEqual([200, 503], [self.status(path) for path in ("/health", "/readiness")])

    def test_why(self) -> None:
        """Since when nothing is received, and why, is said wherever one looks, healthy or not."""
        self.watched.upstream = "host=primary"
        for error, because in (
            ("", ""),
            ("connection refused (at 1.2.3.4)", ": connection refused (at 1.2.3.4)"),
        ):
            self.watched.outage = NotReceiving(990.5, error)
            said = {"since": 990.5, "error": error or None}
            for ready, path, expected in (
                (True, "/health", {"ok": True}),
                (
                    True,
                    "/readiness",
                    {"ok": False, "reason": f"nothing is received from the upstream{because}"},
                ),
                (False, "/health", {"ok": False, "reason": f"there is no WAL to serve yet{because}"}),
                (False, "/readiness", {"ok": False, "reason": f"there is no WAL to serve yet{because}"}),
            ):
                self.watched.source.ready = ready
                found = json.loads(self.client.ask(path)[2])
                self.assertEqual(expected | {"not_receiving": said}, found, path)
                self.assertEqual(said, json.loads(self.client.ask("/status.json")[2])["not_receiving"])
        self.watched.outage, self.watched.receiver, self.watched.source.ready = None, RECEIVING, True
        self.assertEqual({"ok": True}, json.loads(self.client.ask("/health")[2]))
        self.assertIsNone(json.loads(self.client.ask("/status.json")[2])["not_receiving"])

    def test_metricsAgree(self) -> None:
        """walsender_healthy and walsender_ready are the answers of /health and /readiness."""
        for upstream, receiver, ready, stopping in product(("", "host=p"), (None, RECEIVING), (1, 0), (0, 1)):
            self.watched.upstream, self.watched.receiver = upstream, receiver
            self.watched.source.ready, self.stopping = bool(ready), bool(stopping)
            text = self.client.ask("/metrics")[2].decode()
            for path, name in (("/health", "walsender_healthy"), ("/readiness", "walsender_ready")):
                is_good = self.status(path) == 200
                self.assertIn(f"\n{name} {float(is_good)}\n", text, (upstream, receiver, ready, stopping))

    def test_lag(self) -> None:
        """A relay is ready if it is no further behind its upstream than permitted, by default 16 MB."""
        self.watched.upstream, self.watched.receiver = "host=primary", RECEIVING
        for path, expected in (
            ("/readiness", 200),
            ("/readiness?lag=255", 503),
            ("/readiness?lag=256&mode=write", 200),
            ("/readiness?lag=0", 503),
            ("/readiness?lag=1kB", 200),
            ("/readiness?lag=1e9", 400),
            ("/readiness?lag=", 400),
            ("/readiness?lag=-1", 400),
            ("/readiness?lag=%FF", 400),
        ):
            self.assertEqual(expected, self.status(path), path)
        _, _, body = self.client.ask("/readiness?lag=1")
        self.assertEqual(
            {"ok": False, "reason": "more than 1 bytes behind the upstream", "lag_bytes": 256},
            json.loads(body),
        )

    def test_defaultLag(self) -> None:
        """More than 16 MB are too much."""
        self.watched.upstream = "host=primary"
        for behind, expected in ((16 << 20, 200), ((16 << 20) + 1, 503)):
            end = LSN(RECEIVING.flushed_lsn + behind)
            self.watched.receiver = RECEIVING.__class__(
                *(1, RECEIVING.start_lsn, end, RECEIVING.flushed_lsn, None, None, end, "", "")
            )
            self.assertEqual(expected, self.status("/readiness"))

    def test_parseLag(self) -> None:
        """Bytes, or a number with a unit; anything else is refused."""
        for text, expected in (
            ("0", 0),
            ("1048576", 1 << 20),
            ("16kB", 1 << 14),
            ("64MB", 64 << 20),
            ("1GB", 1 << 30),
        ):
            self.assertEqual(expected, parse_lag(text))
        for text in ("x", "1 parsec", "1" * 30, "-1kB", "9" * 20 + "TB", "1.5", "\u0663"):
            self.assertRaises(ConfigurationError, parse_lag, text)


class PageTests(SiteTestCase):
    """What is answered."""

    def test_metrics(self) -> None:
        """Metrics, as text or as OpenMetrics."""
        status, headers, body = self.client.ask("/metrics")
        self.assertEqual((200, "no-store"), (status, headers["cache-control"]))
        self.assertTrue(headers["content-type"].startswith("text/plain; version="))
        self.assertIn(b"walsender_ready 1.0\n", body)
        self.assertEqual(len(body), int(headers["content-length"]))

    def test_statusDocument(self) -> None:
        """The document has standbys, slots and timelines."""
        self.watched.upstream, self.watched.receiver = "host=primary password=geheim", RECEIVING
        _, headers, body = self.client.ask("/status.json")
        found = json.loads(body)
        self.assertEqual("application/json", headers["content-type"])
        self.assertNotIn(b"geheim", body)
        self.assertEqual(
            ("relay", "running", "0/500000"), (found["role"], found["state"], found["flush_lsn"])
        )
        self.assertEqual(("primary", 256), (found["upstream"]["host"], found["upstream"]["lag_bytes"]))
        standby, other = found["standbys"]
        self.assertEqual(
            ("0/480000", END - 0x480000, 2.5),
            (standby["sent_lsn"], standby["to_send_bytes"], standby["replay_lag"]),
        )
        self.assertEqual((None, None), (other["sent_lsn"], other["client_addr"]))
        self.assertEqual([0x200000, None, None], [slot["retained_bytes"] for slot in found["slots"]])
        self.assertEqual((END - 0x450000, None), (standby["lag_bytes"], other["lag_bytes"]))
        self.assertEqual((2, 3), (found["standby_count"], found["slot_count"]))
        (timeline,) = found["timelines"]
        self.assertEqual(
            {
                "timeline": 1,
                "parent": None,
                "switchpoint": None,
                "segments": 4,
                "missing": 1,
                "ranges": [
                    {"start_lsn": "0/100000", "end_lsn": "0/300000", "segments": 2},
                    {"start_lsn": "0/400000", "end_lsn": "0/600000", "segments": 2},
                ],
                "gaps": [{"start_lsn": "0/300000", "end_lsn": "0/400000", "segments": 1}],
            },
            timeline,
        )

    def test_statusDocumentBeforeThereIsWal(self) -> None:
        """Without WAL it says so."""
        self.watched.source.ready = False
        found = json.loads(self.client.ask("/status.json")[2])
        self.assertEqual(
            ("directory", "starting", False), (found["role"], found["state"], "standbys" in found)
        )

    def test_head(self) -> None:
        """HEAD has the status and the length, and no body."""
        status, headers, body = self.client.ask("/health", "HEAD")
        self.assertEqual((200, b""), (status, body))
        self.assertEqual(len(self.client.ask("/health")[2]), int(headers["content-length"]))

    def test_othersAreRefused(self) -> None:
        """Other paths are not there, other methods not allowed."""
        paths = ("/nowhere", "/metrics/more", "//", "/%FF", "/page.html", "/events/more", "/..%2f")
        self.assertEqual([404] * len(paths), [self.status(path) for path in paths])
        for path in ("/health", "/", "/events"):
            for method in ("POST", "DELETE"):
                status, headers, _ = self.client.ask(path, method)
                self.assertEqual((405, "get, head"), (status, headers["allow"]), path)

    def test_failureIsOneLine(self) -> None:
        """What cannot be found out is answered 500; the log has one line for it, and no traceback."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.watched.slots.append(None)
        status, _, body = self.client.ask("/metrics")
        self.assertEqual((500, b"internal error\n"), (status, body))
        (event,) = (event for event in events if event["log_namespace"].startswith("walsender"))
        self.assertEqual("could not answer {path} over HTTP: {kind}: {error}", event["log_format"])
        self.assertEqual("/metrics", event["path"])
        self.assertNotIn("log_failure", event)
        self.assertEqual(500, self.client.ask("/status.json")[0])  # nothing is held for ever

    def test_oneAtATime(self) -> None:
        """Metrics are made for one client after the other; health needs no thread and does not wait."""
        self.held = []
        other, third = Client(self.site), Client(self.site)
        for client in (self.client, other):
            client.protocol.dataReceived(b"GET /metrics HTTP/1.1\r\n\r\n")
        self.assertEqual(1, len(self.held))
        self.assertEqual(200, third.ask("/health")[0])
        self.held[0].callback(None)
        self.assertEqual(200, self.client.answer()[0])
        self.assertEqual(b"", other.transport.value())
        self.held[1].callback(None)
        self.assertEqual(200, other.answer()[0])

    def test_clientThatLeaves(self) -> None:
        """A client that does not wait for its answer is no failure."""
        self.held = []
        self.client.protocol.dataReceived(b"GET /metrics HTTP/1.1\r\n\r\n")
        self.client.protocol.connectionLost(Failure(ConnectionDone()))
        self.held[0].callback(None)
        self.assertEqual(b"", self.client.transport.value())


class LimitTests(SiteTestCase):
    """What a client can cost."""

    def test_connections(self) -> None:
        """Of too many clients the oldest go, of the address that has most: a probe is always answered."""
        most = StatusSite.max_connections
        flood = [Client(self.site, IPv4Address("TCP", "192.0.2.66", port)) for port in range(2 * most - 1)]
        self.assertEqual(most, [client.transport.disconnected for client in flood].count(True))
        self.assertIsNone(self.site.buildProtocol(LOCAL), "before any of them has gone")
        for client in flood[:most]:
            client.lose()
        self.assertEqual(200, self.client.ask("/liveness")[0])
        self.assertEqual(200, Client(self.site).ask("/liveness")[0])
        self.assertTrue(flood[most].transport.disconnected)
        for client in flood[most:]:
            client.lose()
        self.assertEqual(2, len(self.site.connections))

    def test_manyInATurn(self) -> None:
        """A port does not take more and more clients in a turn."""

        class FromPort(StringTransport):
            server = SimpleNamespace(numberAccepts=100)

        self.site.buildProtocol(LOCAL).makeConnection(FromPort())
        self.assertEqual(1, FromPort.server.numberAccepts)

    def test_otherNames(self) -> None:
        """Over loopback no name but localhost is answered: it may be that of a web page somewhere."""
        for here, name, expected in (
            ("127.0.0.1", "evil.example", 421),
            ("127.0.0.1", "evil.example:9187", 421),
            ("::1", "evil.example", 421),
            ("127.0.0.1", "localhost.evil.example", 421),
            ("127.0.0.1", "127.0.0.1.evil.example", 421),
            ("127.0.0.1", "localhost:9187", 200),
            ("127.0.0.1", "LocalHost.", 200),
            ("127.0.0.1", "a.localhost", 200),
            ("127.0.0.1", "127.0.0.1:9187", 200),
            ("::1", "[::1]:9187", 200),
            ("192.0.2.1", "relay.example:9187", 200),
        ):
            kind = IPv6Address if ":" in here else IPv4Address
            client = Client(self.site, host=kind("TCP", here, 9187))
            for path in "/", "/status.json", "/metrics", "/health", "/events":
                self.assertEqual(expected, client.ask(path, host=name)[0], (here, name, path))
            client.lose()
        client = Client(self.site, host=UNIXAddress("/s"))
        self.assertEqual(200, client.ask("/health", host="relay.example")[0])

    def test_time(self) -> None:
        """A request must have come in time, however it drips in."""
        for _ in range(REQUEST_TIMEOUT - 1):
            self.client.protocol.dataReceived(b"G")
            self.clock.advance(1)
        self.assertFalse(self.client.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.client.transport.disconnected)

    def test_timeForReading(self) -> None:
        """An answer must be read in time, also by who wants no other."""
        self.client.protocol.dataReceived(b"GET /health HTTP/1.0\r\n\r\n")
        self.assertTrue(self.client.transport.disconnecting)
        self.clock.advance(REQUEST_TIMEOUT)
        self.assertTrue(self.client.transport.disconnected)

    def test_header(self) -> None:
        """An endless header is refused."""
        self.client.protocol.dataReceived(b"GET /health HTTP/1.1\r\nA: " + b"x" * (1 << 15))
        self.assertTrue(self.client.transport.disconnecting)

    def test_body(self) -> None:
        """A body is not kept: not in memory, not on disk, whatever its length is said to be."""
        size = 10 << 30
        self.client.protocol.dataReceived(b"POST /health HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(4):
            self.client.protocol.dataReceived(b"x" * (1 << 18))
        (request,) = self.client.protocol.requests
        self.assertEqual(0, request.content.tell())
        self.assertEqual(405, Client(self.site).ask("/health", "POST", b"x" * 1000)[0])

    def test_close(self) -> None:
        """At the end all are dropped, and nothing is left that waits."""
        self.site.close()
        self.assertTrue(self.client.transport.disconnected)
        self.client.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([], self.clock.getDelayedCalls())
