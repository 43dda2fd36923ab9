"""Which WAL must stay, and which slots lose theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.retention import Demand, Limits, WalStatus, safe_wal_size, wal_status
from walsender.retention.decision import holder, kept_for_slots, lost_slots

MIB = 1 << 20
POSITIONS = st.integers(1, 60 * MIB)
SIZES = st.none() | st.integers(0, 40).map(lambda number: number * MIB)
LIMITS = st.builds(Limits, SIZES, SIZES)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    """Return what could be asked for at any moment."""
    flush = draw(POSITIONS)
    restart = draw(st.dictionaries(st.sampled_from("abc"), POSITIONS))
    needed = {name: draw(st.integers(1, position)) for name, position in restart.items()}
    receiving = draw(st.integers(max(1, flush - 3 * MIB), flush + MIB))
    return Demand(MIB, flush, receiving, restart, needed, draw(st.none() | POSITIONS))


def demand(flush: int = 50 * MIB + 5, standby: int | None = None, **slots: int) -> Demand:
    """Return a demand with slots whose positions are on disk."""
    return Demand(MIB, flush, flush, slots, slots, standby)


UNSAVED = Demand(MIB, 50 * MIB, 50 * MIB, {"a": 45 * MIB}, {"a": 40 * MIB})


class HolderTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """The lowest that anybody needs is kept, and it is said because of whom."""
        keep_4 = Limits(keep=4 * MIB)
        none = Limits(keep=0)
        for demanded, limits, number, reason in (
            (demand(), Limits(), 0, '"wal_keep_size", which is -1'),
            (demand(), none, 49, "the newest WAL itself"),
            (demand(50 * MIB), none, 48, "the newest WAL itself"),
            (demand(), Limits(keep=MIB - 1), 49, "the newest WAL itself"),
            (demand(), keep_4, 46, '"wal_keep_size"'),
            (demand(a=30 * MIB + 7), keep_4, 30, 'replication slot "a"'),
            (demand(a=48 * MIB), keep_4, 46, '"wal_keep_size"'),
            (demand(a=31 * MIB, b=30 * MIB), none, 30, 'replication slot "b"'),
            (demand(standby=20 * MIB, a=30 * MIB), none, 20, "a connected standby"),
            (demand(standby=90 * MIB, a=90 * MIB), none, 49, "the newest WAL itself"),
            (demand(standby=20 * MIB), Limits(keep=0, slots=10 * MIB), 40, "a connected standby"),
            (demand(standby=45 * MIB), Limits(keep=0, slots=10 * MIB), 45, "a connected standby"),
            (demand(standby=20 * MIB), Limits(keep=12 * MIB, slots=10 * MIB), 38, '"wal_keep_size"'),
            (demand(standby=MIB), Limits(keep=0, slots=99 * MIB), 1, "a connected standby"),
            (demand(3 * MIB + 1), keep_4, 0, '"wal_keep_size"'),
            (Demand(MIB, 50 * MIB, 42 * MIB + 1), none, 41, "the newest WAL itself"),
            (
                Demand(MIB, 50 * MIB, 50 * MIB, {"a": 45 * MIB}, {"a": 40 * MIB}),
                none,
                40,
                'replication slot "a"',
            ),
        ):
            found = holder(demanded, limits)
            self.assertEqual((number, reason), (found.number, found.reason))

    @given(demands(), LIMITS)
    def test_nobodyMissesAnything(self, demanded: Demand, limits: Limits) -> None:
        """No byte that anybody needs is before what is kept; of a standby, none that is within the limit."""
        first = holder(demanded, limits).number * MIB
        needed = [*demanded.needed.values(), demanded.flush - 1, demanded.receiving - 1]
        if demanded.standby is not None:
            needed.append(max(demanded.standby, 0 if limits.slots is None else demanded.flush - limits.slots))
        self.assertLessEqual(first, min(needed))
        if limits.keep is None:
            self.assertEqual(0, first)
        else:
            self.assertLessEqual(first, max(0, demanded.flush - limits.keep))

    @given(demands(), LIMITS)
    def test_noMoreThanThat(self, demanded: Demand, limits: Limits) -> None:
        """What is kept begins with a segment that somebody needs, or that ``wal_keep_size`` covers."""
        first = holder(demanded, limits).number
        needed = list(demanded.needed.values())
        needed += [] if demanded.standby is None else [demanded.standby]
        needed += [] if limits.slots is None else [max(0, demanded.flush // MIB - limits.slots // MIB) * MIB]
        newest = max(0, (min(demanded.flush, demanded.receiving) - 1) // MIB - 1)  # and the one before
        kept = 0 if limits.keep is None else max(0, demanded.flush // MIB - limits.keep // MIB)
        self.assertIn(first, {kept, newest, *(position // MIB for position in needed)})


class SlotTests(SynchronousTestCase):
    def test_limit(self) -> None:
        """Whole segments count: a slot is past the limit when its segment is."""
        limits = Limits(keep=0, slots=10 * MIB)
        slots = demand(a=39 * MIB + 9, b=40 * MIB, c=50 * MIB)
        self.assertEqual(("a",), lost_slots(slots, limits))
        self.assertEqual((), lost_slots(slots, Limits(keep=0)))
        self.assertEqual((), lost_slots(slots, Limits(keep=11 * MIB, slots=10 * MIB)))
        self.assertEqual((), lost_slots(slots, Limits(keep=None, slots=0)))
        self.assertEqual(("a", "b"), lost_slots(slots, Limits(keep=0, slots=0)))

    def test_unsavedPosition(self) -> None:
        """A slot is judged by where its standby is, not by what is on disk of that yet."""
        self.assertEqual((), lost_slots(UNSAVED, Limits(keep=0, slots=6 * MIB)))

    def test_standbyDoesNotSaveASlot(self) -> None:
        """What a connected standby keeps is not kept for slots."""
        slots = demand(standby=20 * MIB, a=30 * MIB)
        self.assertEqual(("a",), lost_slots(slots, Limits(keep=0, slots=10 * MIB)))

    def test_status(self) -> None:
        """Kept anyway, kept for slots, past the limit."""
        limits = Limits(keep=4 * MIB, slots=10 * MIB)
        for restart, expected in (
            (50 * MIB, WalStatus.RESERVED),
            (46 * MIB, WalStatus.RESERVED),
            (46 * MIB - 1, WalStatus.EXTENDED),
            (40 * MIB, WalStatus.EXTENDED),
            (40 * MIB - 1, WalStatus.UNRESERVED),
        ):
            self.assertIs(expected, wal_status(restart, demand(a=restart), limits))
        self.assertIs(WalStatus.RESERVED, wal_status(1, demand(a=1), Limits()))

    @given(demands(), LIMITS)
    def test_safeSize(self, demanded: Demand, limits: Limits) -> None:
        """With so much more WAL a slot is past the limit, and with one byte less it is not."""
        for name, restart in demanded.restart.items():
            safe = safe_wal_size(restart, demanded, limits)
            if safe is None:
                self.assertNotIn(name, lost_slots(demanded, limits))
                continue
            for more, lost in ((safe - 1, False), (safe, True)):
                flush = demanded.flush + more
                later = Demand(MIB, flush, flush, {name: restart})
                expected = WalStatus.UNRESERVED if lost else wal_status(restart, later, limits)
                self.assertIs(expected, wal_status(restart, later, limits))
                self.assertEqual(lost, bool(lost_slots(later, limits)))

    @given(demands(), LIMITS)
    def test_withoutTheLostNothingIsPastTheLimit(self, demanded: Demand, limits: Limits) -> None:
        """Once the slots that are past the limit are gone, no further one is."""
        lost = lost_slots(demanded, limits)
        left = {name: position for name, position in demanded.restart.items() if name not in lost}
        later = Demand(MIB, demanded.flush, demanded.receiving, left, left)
        self.assertEqual((), lost_slots(later, limits))
        self.assertGreaterEqual(kept_for_slots(later, limits), kept_for_slots(demanded, limits))
