"""Commands that tell of timelines, while a history is looked for elsewhere."""

from __future__ import annotations

from protocol_helpers import COPY_BOTH, READY, Client, ProtocolTestCase, Server, error_fields, kinds, query
from twisted.internet.defer import Deferred

from walsender.sender.states import State

HISTORY = b"1\t0/2000000\tno recovery target specified\n"


class SearchTests(ProtocolTestCase):
    """A server that does not know yet where its newest timeline comes from."""

    def setUp(self) -> None:
        """Make one, which looks for it when it is asked."""
        super().setUp()
        self.server = Server(self.scripted_source(0x3000060, timeline=2))
        self.source = self.server.source
        self.source.finding = Deferred()

    def asked(self, text: str) -> Client:
        """Return a client that has asked, and waits."""
        client = self.server.started()
        self.assertEqual(b"", client.ask(text))
        return client

    def found(self) -> None:
        """Let the history be found."""
        self.source.histories[2] = HISTORY
        self.source.timeline = 1
        self.source.switch(2, 0x2000000, 0x3000060)
        finding, self.source.finding = self.source.finding, None
        finding.callback(None)

    def test_timelineHistory(self) -> None:
        """It is given as soon as it is there."""
        client = self.asked("TIMELINE_HISTORY 2")
        self.assertEqual([2], self.source.sought)
        self.found()
        self.assertIn(HISTORY, client.receive())

    def test_olderTimeline(self) -> None:
        """A start on it is decided when it is known where it ends."""
        client = self.asked("START_REPLICATION 0/1000000 TIMELINE 1")
        self.assertEqual([None], self.source.sought)
        self.found()
        self.assertTrue(client.receive().startswith(COPY_BOTH))
        self.assertIn(State.STREAMING, client.states)

    def test_newestTimeline(self) -> None:
        """It is told when it is known."""
        client = self.asked("IDENTIFY_SYSTEM")
        self.found()
        self.assertEqual(b"TDCZ", kinds(client.receive()))

    def test_others(self) -> None:
        """Nothing else waits for it."""
        client = self.server.started()
        self.assertEqual(b"TDCZ", kinds(client.ask("SHOW wal_segment_size")))
        self.assertEqual([], self.source.sought)

    def test_inVain(self) -> None:
        """The command is refused as ever, and the session goes on, in order."""
        client = self.server.started()
        client.send(query("TIMELINE_HISTORY 2") + query("SHOW wal_segment_size"))
        self.assertEqual(b"", client.receive())
        finding, self.source.finding = self.source.finding, None
        finding.callback(None)
        answer = client.receive()
        self.assertEqual("58P01", error_fields(answer)["C"])
        self.assertEqual(b"TEZTDCZ", kinds(answer))
        self.assertEqual(READY, answer[-6:])

    def test_aClientThatHasGone(self) -> None:
        """Nothing is made for it any more."""
        client = self.asked("START_REPLICATION 0/1000000 TIMELINE 1")
        client.transport.lose()
        self.found()
        self.assertEqual([], self.source.opened)
        self.assertEqual({}, self.source.subscribers)
