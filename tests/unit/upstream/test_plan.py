"""Where receiving goes on, from two histories."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DataCorrupted
from walsender.lsn import LSN, Geometry
from walsender.upstream.plan import Start, UpstreamBehind, plan_start
from walsender.wal import HistoryEntry, TimelineHistory

MIB = 1 << 20
GEOMETRY = Geometry.contiguous(MIB)


def history(*switches: tuple[int, int], timeline: int | None = None) -> TimelineHistory:
    """Return the history with these ancestors, of the timeline after the last unless it is given."""
    entries = tuple(HistoryEntry(ancestor, LSN(switchpoint)) for ancestor, switchpoint in switches)
    return TimelineHistory(timeline or len(switches) + 1, entries)


FIRST = history()
AT_FIVE = 5 * MIB + 1000
SECOND = history((1, AT_FIVE))
THIRD = history((1, AT_FIVE), (2, 7 * MIB))


class PlanTests(SynchronousTestCase):
    def plan(self, upstream: TimelineHistory, held: TimelineHistory, position: int) -> Start:
        """Return where to begin."""
        return plan_start(upstream, held, position, GEOMETRY)

    def test_theSameTimelineGoesOnAtTheSegmentsStart(self) -> None:
        """What is held of the segment is received again, and compared."""
        self.assertEqual(self.plan(FIRST, FIRST, 4 * MIB + 77), Start(1, 4 * MIB))

    def test_atASegmentsEndTheNextOneIsBegun(self) -> None:
        """A segment that is whole is not asked for again."""
        self.assertEqual(self.plan(FIRST, FIRST, 4 * MIB), Start(1, 4 * MIB))

    def test_anOldTimelineIsFirstFinished(self) -> None:
        """A promotion ahead of what is held: first the rest of the timeline before."""
        self.assertEqual(self.plan(SECOND, FIRST, 4 * MIB + 77), Start(1, 4 * MIB))

    def test_aTimelineThatIsWholeIsLeft(self) -> None:
        """What is held ends where the new timeline begins: go on with that, in the same segment."""
        self.assertEqual(self.plan(SECOND, FIRST, AT_FIVE), Start(2, 5 * MIB))

    def test_aForkBehindUsLeavesOurWalWhereItIs(self) -> None:
        """The upstream's history left ours before our end: the new timeline is followed from there."""
        self.assertEqual(self.plan(SECOND, FIRST, 6 * MIB), Start(2, 5 * MIB, forked_at=AT_FIVE))

    def test_severalPromotionsAreFollowedOneByOne(self) -> None:
        """From timeline 1 the way to timeline 3 leads over 2."""
        self.assertEqual(self.plan(THIRD, FIRST, AT_FIVE), Start(2, 5 * MIB))
        self.assertEqual(self.plan(THIRD, SECOND, 7 * MIB), Start(3, 7 * MIB))

    def test_twoBranchesMeetAtTheirCommonAncestor(self) -> None:
        """Our newest timeline is none of the upstream's: begin where the upstream's left our ancestor."""
        sibling = history((1, AT_FIVE + 8), timeline=3)
        plan = self.plan(sibling, SECOND, 6 * MIB)
        # Timeline 1 is held up to where ours began, so a little of it is missing.
        self.assertEqual(plan, Start(1, 5 * MIB, forked_at=AT_FIVE))

    def test_aBranchThatBeganBeforeOursIsFollowedFromItsBeginning(self) -> None:
        """The upstream left our ancestor before we did."""
        sibling = history((1, 3 * MIB + 8), timeline=3)
        self.assertEqual(self.plan(sibling, SECOND, 6 * MIB), Start(3, 3 * MIB, forked_at=3 * MIB + 8))

    def test_anUpstreamBehindUsIsWaitedFor(self) -> None:
        """A server that has not yet followed the promotion that we have."""
        error = self.assertRaises(UpstreamBehind, self.plan, FIRST, SECOND, 6 * MIB)
        self.assertIn("highest timeline 1 of the primary is behind", error.message)

    def test_twoPromotionsToOneTimelineAreNotMixed(self) -> None:
        """The same number with another past is another timeline."""
        other = history((1, AT_FIVE + 8))
        self.assertRaises(DataCorrupted, self.plan, other, SECOND, 6 * MIB)

    def test_strangersAreRefused(self) -> None:
        """Histories without a common ancestor are of two clusters, or one is damaged."""
        upstream = history((4, AT_FIVE), timeline=5)
        self.assertRaises(DataCorrupted, self.plan, upstream, SECOND, 6 * MIB)
