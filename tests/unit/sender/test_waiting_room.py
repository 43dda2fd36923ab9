"""Who waits to be let in, and who goes when there are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.waiting_room import WaitingRoom, origin


def v4(host: str) -> IPv4Address:
    """Return a client's address."""
    return IPv4Address("TCP", host, 40000)


def v6(host: str) -> IPv6Address:
    """Return a client's address."""
    return IPv6Address("TCP", host, 40000)


class OriginTests(SynchronousTestCase):
    def test_whoIsBlamed(self) -> None:
        """An IPv4 address however it is written, an IPv6 network of 64 bits, all local sockets together."""
        self.assertEqual("192.0.2.1", origin(v4("192.0.2.1")))
        self.assertEqual("192.0.2.1", origin(v6("::ffff:192.0.2.1")))
        self.assertEqual(origin(v6("2001:db8::1")), origin(v6("2001:db8::ffff:1")))
        self.assertNotEqual(origin(v6("2001:db8::1")), origin(v6("2001:db8:0:1::1")))
        self.assertEqual("fe80::/64", origin(v6("fe80::1%eth0")))
        self.assertEqual("[local]", origin(UNIXAddress(b"/tmp/s")))


class WaitingRoomTests(SynchronousTestCase):
    def test_nobodyGoesBeforeItIsFull(self) -> None:
        """Fifty standbys behind one address are no flood."""
        room: WaitingRoom[int] = WaitingRoom(50)
        self.assertEqual([None] * 50, [room.enter(number, v4("192.0.2.1")) for number in range(50)])

    def test_floodDrivesOutItself(self) -> None:
        """One address that opens connections without end loses its oldest; who came before it stays."""
        room: WaitingRoom[str] = WaitingRoom(10)
        room.enter("honest", v4("192.0.2.1"))
        gone = [room.enter(f"flood {number}", v4("192.0.2.66")) for number in range(100)]
        self.assertEqual([None] * 9 + [f"flood {number}" for number in range(91)], gone)
        self.assertEqual("flood 91", room.enter("newcomer", v4("192.0.2.2")))
        self.assertEqual(10, len(room))
        self.assertIn("honest", room._origins)

    def test_manyAddresses(self) -> None:
        """Where each has one, the one that has waited longest goes."""
        room: WaitingRoom[int] = WaitingRoom(3)
        gone = [room.enter(number, v4(f"192.0.2.{number}")) for number in range(6)]
        self.assertEqual([None, None, None, 0, 1, 2], gone)

    def test_leave(self) -> None:
        """Who is let in makes room, once."""
        room: WaitingRoom[int] = WaitingRoom(1)
        room.enter(1, v4("192.0.2.1"))
        room.leave(1)
        room.leave(1)
        self.assertIsNone(room.enter(2, v4("192.0.2.1")))
        self.assertEqual(1, len(room))

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4))), st.integers(1, 8))
    def test_bounded(self, events: list[tuple[int, int]], limit: int) -> None:
        """There are never more than the limit, and an address with fewer than its share loses nobody."""
        room: WaitingRoom[int] = WaitingRoom(limit)
        inside: dict[int, int] = {}
        for client, where in events:
            if client in inside:
                room.leave(client)
                del inside[client]
                continue
            gone = room.enter(client, v4(f"192.0.2.{where}"))
            inside[client] = where
            if gone is not None:
                counts = [list(inside.values()).count(place) for place in range(5)]
                self.assertEqual(max(counts), counts[inside.pop(gone)])
            self.assertLessEqual(len(room), limit)
            self.assertEqual(set(inside), set(room._origins))
