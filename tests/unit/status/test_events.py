"""Those who listen: what they are told, what they cost, and what becomes of those who do not read."""

from __future__ import annotations

import json
from typing import Any

from site_helpers import LOCAL, SiteTestCase, parse_answer
from status_helpers import END
from twisted.logger import globalLogPublisher

from walsender.sender.slot_table import WalSenderEntry
from walsender.status.events import INTERVAL, MAX_LISTENERS, MAX_MISSED
from walsender.status.site import REQUEST_TIMEOUT
from walsender.testing.transport import ThrottledTransport


class Listener:
    """One connection that asks for the events."""

    def __init__(self, site: Any, method: str = "GET") -> None:
        protocol = site.buildProtocol(LOCAL)
        self.transport = ThrottledTransport(protocol)
        protocol.makeConnection(self.transport)
        # Of 1.0, so that what comes is not in chunks.
        self.transport.deliver(f"{method} /events HTTP/1.0\r\n\r\n".encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of what has been sent."""
        return parse_answer(self.transport.value())

    def events(self) -> list[dict[str, Any]]:
        """Return what each event says."""
        _, _, body = self.answer()
        *parts, rest = body.decode().split("\n\n")
        assert rest == ""
        assert parts.pop(0) == "retry: 2000"
        assert all(part.startswith("data: ") and "\n" not in part for part in parts)
        return [json.loads(part.removeprefix("data: ")) for part in parts]


class EventsTestCase(SiteTestCase):
    """Counts how often the server is described."""

    def setUp(self) -> None:
        """Count."""
        self.described = 0
        SiteTestCase.setUp(self)

    def _in_thread(self, function: Any, *arguments: Any) -> Any:
        self.described += 1
        return SiteTestCase._in_thread(self, function, *arguments)

    def pass_time(self, events: int) -> None:
        """Let the time of some events pass."""
        for _ in range(events):
            self.clock.advance(INTERVAL + 0.1)


class EventsTests(EventsTestCase):
    """What is told."""

    def test_framing(self) -> None:
        """The state comes at once and then again and again, as server-sent events."""
        self.watched.standby.application_name = "a\n\ndata: b\r\u2028"
        listener = Listener(self.site)
        status, headers, _ = listener.answer()
        self.assertEqual((200, "text/event-stream"), (status, headers["content-type"]))
        self.assertEqual(
            ("no-store", "nosniff"), (headers["cache-control"], headers["x-content-type-options"])
        )
        (found,) = listener.events()
        self.assertEqual(self.watched.standby.application_name, found["standbys"][0]["application_name"])
        self.watched.source.grow(END + 0x1000)
        self.pass_time(2)
        self.assertEqual(
            ["0/500000", "0/501000", "0/501000"], [event["flush_lsn"] for event in listener.events()]
        )

    def test_sameAsStatusDocument(self) -> None:
        """An event says what ``/status.json`` says."""
        (event,) = Listener(self.site).events()
        self.assertEqual(json.loads(self.client.ask("/status.json")[2]), event)

    def test_modernClient(self) -> None:
        """With HTTP 1.1 each event is sent when it is there, in chunks."""
        self.client.protocol.dataReceived(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        _, headers, body = self.client.answer()
        self.assertEqual("chunked", headers["transfer-encoding"])
        self.assertTrue(body.endswith(b"}\n\n\r\n"))

    def test_head(self) -> None:
        """HEAD is told what GET would be, and does not listen."""
        status, headers, body = Listener(self.site, "HEAD").answer()
        self.assertEqual((200, "text/event-stream", b""), (status, headers["content-type"], body))
        self.assertEqual(0, self.described)

    def test_longerThanARequest(self) -> None:
        """Who reads may listen for ever."""
        listener = Listener(self.site)
        for _ in range(2 * REQUEST_TIMEOUT):
            self.pass_time(1)
            listener.transport.drain_all()
        self.assertFalse(listener.transport.disconnected or listener.transport.aborted)
        self.assertEqual(2 * REQUEST_TIMEOUT + 1, len(listener.events()))


class CostTests(EventsTestCase):
    """What it costs."""

    def test_onceForAll(self) -> None:
        """However many listen, the server is described once an interval."""
        listeners = [Listener(self.site) for _ in range(MAX_LISTENERS)]
        self.assertEqual(1, self.described)
        self.pass_time(3)
        self.assertEqual(4, self.described)
        self.assertEqual([4] * MAX_LISTENERS, [len(listener.events()) for listener in listeners])

    def test_nobodyListens(self) -> None:
        """When the last has left nothing is described and nothing waits; the next has news at once."""
        listeners = [Listener(self.site), Listener(self.site)]
        idle = len(self.clock.getDelayedCalls()) - 1
        for listener in listeners:
            self.pass_time(1)
            listener.transport.lose()
        self.assertEqual(idle, len(self.clock.getDelayedCalls()))
        described = self.described
        self.pass_time(5)
        self.assertEqual(described, self.described)
        self.watched.source.grow(END + 0x1000)
        (event,) = Listener(self.site).events()
        self.assertEqual("0/501000", event["flush_lsn"])

    def test_leavingMeanwhile(self) -> None:
        """Who leaves while the server is being described is told nothing; who comes then is."""
        self.held = []
        first = Listener(self.site)
        first.transport.lose()
        second = Listener(self.site)
        self.assertEqual(1, self.described)
        self.held[0].callback(None)
        self.assertEqual((1, 1), (len(second.events()), self.described))
        self.assertNotIn(b"data:", first.transport.value())

    def test_allLeaveMeanwhile(self) -> None:
        """When nobody is left by then, nothing goes on, and who comes later is told what is so then."""
        self.held = []
        first = Listener(self.site)
        first.transport.lose()
        idle = len(self.clock.getDelayedCalls())
        self.held.pop().callback(None)
        self.assertEqual(idle, len(self.clock.getDelayedCalls()))
        Listener(self.site)
        self.assertEqual(2, self.described)

    def test_slowThread(self) -> None:
        """The next description waits for the one before."""
        self.held = []
        Listener(self.site)
        self.pass_time(10)
        self.assertEqual(1, self.described)

    def test_manyStandbys(self) -> None:
        """The more standbys, the longer the rest between two looks at all of them."""
        self.watched.table.limit = 2000
        for number in range(1000):
            self.watched.table.reserve(WalSenderEntry(100 + number, "10.0.0.2", 1, 900.0))
        Listener(self.site)
        self.pass_time(1)
        self.assertEqual(1, self.described)
        self.pass_time(1)
        self.assertEqual(2, self.described)

    def test_failure(self) -> None:
        """What fails again and again has one line in the log; when it works again, it goes on."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.watched.slots.append(None)
        listener = Listener(self.site)
        self.pass_time(3)
        (event,) = (event for event in logged if event["log_namespace"].startswith("walsender"))
        self.assertNotIn("log_failure", event)
        self.assertEqual([], listener.events())
        self.watched.slots.pop()
        self.pass_time(1)
        self.assertEqual(1, len(listener.events()))


class LimitTests(EventsTestCase):
    """Who may listen, and for how long."""

    def test_listeners(self) -> None:
        """There are so many and no more, and others are still answered, until one of them leaves."""
        listeners = [Listener(self.site) for _ in range(MAX_LISTENERS)]
        self.assertEqual(503, Listener(self.site).answer()[0])
        self.assertEqual(200, self.status("/metrics"))
        listeners[0].transport.lose()
        self.assertEqual(200, Listener(self.site).answer()[0])

    def test_whoDoesNotRead(self) -> None:
        """What waits for who does not read is bounded, and in the end he is dropped; others do not notice."""
        self.watched.table.limit = 200
        for number in range(100):
            self.watched.table.reserve(WalSenderEntry(100 + number, "10.0.0.2", 1, 900.0, "r", "s" * 60))
        reader, other = Listener(self.site), Listener(self.site)
        while other.transport.buffered <= other.transport.high_water:
            self.clock.advance(2)
            reader.transport.drain_all()
        waiting = other.transport.buffered
        self.assertLess(waiting, other.transport.high_water + len(reader.transport.value()))
        for _ in range(MAX_MISSED):
            self.assertFalse(other.transport.aborted)
            self.assertEqual(waiting, other.transport.buffered)
            self.clock.advance(2)
            reader.transport.drain_all()
        self.assertTrue(other.transport.aborted)
        other.transport.drain()
        self.clock.advance(2)
        self.assertEqual(self.described, len(reader.events()))

    def test_whoReadsLate(self) -> None:
        """Who reads again before that misses what was in between, and has the newest then."""
        listener = Listener(self.site)
        listener.transport.high_water = 0
        self.pass_time(1)
        self.watched.source.grow(END + 0x1000)
        self.pass_time(MAX_MISSED - 1)
        listener.transport.drain_all()
        self.watched.source.grow(END + 0x2000)
        self.pass_time(1)
        found = [event["flush_lsn"] for event in listener.events()]
        self.assertEqual(["0/500000", "0/500000", "0/502000"], found)
        self.pass_time(MAX_MISSED - 1)
        self.assertFalse(listener.transport.aborted)

    def test_close(self) -> None:
        """At the end listeners are dropped, and nothing is left that waits."""
        listener = Listener(self.site)
        self.site.close()
        listener.transport.drain()
        self.assertTrue(listener.transport.disconnected)
        self.client.transport.loseConnection()
        self.client.protocol.connectionLost(None)
        self.assertEqual([], self.clock.getDelayedCalls())
