"""
The end of WAL on files made by chance.

The invariant: whatever the files hold, the search ends without an error, never beyond the last
good record (or the end of a closed segment), and leaves no descriptor open.
"""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import MemoryFiles, disk, end_on

from walsender.testing.wal_maker import MAGICS, WalMaker

SEGMENT = 1 << 20
PAGE = 1024  # small, so that much happens at page ends

VERSIONS = st.sampled_from(sorted(MAGICS))
ORDERS = st.sampled_from(["little", "big"])
LENGTHS = st.integers(33, 200) | st.integers(33, 5000)
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def made(version: int, byte_order: str, lengths: list[int]) -> WalMaker:
    """Return WAL with records of these lengths."""
    maker = WalMaker(version, byte_order=byte_order, page_size=PAGE)  # type: ignore[arg-type]
    maker.record(40)
    for length in lengths:
        maker.record(length)
    return maker


class AnyTailTests(SynchronousTestCase):
    """Files with good beginnings."""

    @SOME
    # Ends with its page, whose data begins at no multiple of eight.
    @example(80400, "little", [97, 113, 161, 573, 617, 1361], b"", False)
    @given(VERSIONS, ORDERS, st.lists(LENGTHS, max_size=12), st.binary(max_size=3000), st.booleans())
    def test_anyTail(self, version: int, order: str, lengths: list[int], tail: bytes, partial: bool) -> None:
        """Any bytes behind the last record leave the end where it was."""
        maker = made(version, order, lengths)
        start = maker.position % SEGMENT
        maker.image(1)[start : start + len(tail)] = tail
        end = end_on(disk(maker, partial=partial))
        assert end is not None
        self.assertEqual(maker.position, end.position)

    @SOME
    @given(VERSIONS, ORDERS, st.lists(LENGTHS, min_size=1, max_size=12), st.data())
    def test_anyCut(self, version: int, order: str, lengths: list[int], data: st.DataObject) -> None:
        """A file that ends anywhere ends WAL with its last whole record."""
        maker = made(version, order, lengths)
        cut = data.draw(st.integers(64, maker.position - SEGMENT))
        end = end_on(MemoryFiles({maker.name(1): bytes(maker.image(1)[:cut])}))
        assert end is not None
        ends = [record.end for record in maker.records if record.end <= SEGMENT + cut]
        self.assertEqual(max(ends, default=SEGMENT), end.position)

    @SOME
    @given(VERSIONS, st.lists(LENGTHS, min_size=1, max_size=12), st.data())
    def test_anySpoiltByte(self, version: int, lengths: list[int], data: st.DataObject) -> None:
        """A changed byte in a record or page header ends WAL before that record, or is harmless padding."""
        maker = made(version, "little", lengths)
        record = data.draw(st.sampled_from(maker.records))
        place = data.draw(st.integers(record.begin, record.end - 1))
        maker.image(1)[place % SEGMENT] ^= data.draw(st.integers(1, 255))
        end = end_on(disk(maker))
        assert end is not None
        self.assertIn(end.position, (record.begin, maker.position, *self.neighbours(maker, record.begin)))

    def neighbours(self, maker: WalMaker, begin: int) -> list[int]:
        """Return where the record before the one at *begin* ends, which may be before a page header."""
        return [other.end for other in maker.records if other.begin < begin][-1:] or [SEGMENT]

    @SOME
    @given(VERSIONS, st.lists(LENGTHS, min_size=1, max_size=12), st.data())
    def test_anyWayOfGrowing(self, version: int, lengths: list[int], data: st.DataObject) -> None:
        """However a file grows byte by byte, each look finds the last whole record, as a first look would."""
        maker = made(version, "little", lengths)
        whole = bytes(maker.image(1))
        cuts = data.draw(st.lists(st.integers(64, maker.position - SEGMENT), max_size=6))
        end = None
        for cut in [*sorted(cuts), maker.position - SEGMENT]:
            files = MemoryFiles({maker.name(1) + ".partial": whole[:cut].ljust(SEGMENT, b"\0")})
            end, fresh = end_on(files, resume=end), end_on(files)
            assert end is not None
            assert fresh is not None
            self.assertEqual(fresh.position, end.position)
            ends = [record.end for record in maker.records]
            self.assertIn(end.position, [SEGMENT, *ends])
            # A record whose last bytes are zeros is whole before its last byte was written.
            self.assertLessEqual(max([e for e in ends if e <= SEGMENT + cut], default=SEGMENT), end.position)
        assert end is not None
        self.assertEqual(maker.position, end.position)


class AnyFilesTests(SynchronousTestCase):
    """Files with anything in them."""

    @SOME
    @given(
        VERSIONS,
        st.lists(st.tuples(st.integers(0, SEGMENT - 1), st.binary(min_size=1, max_size=64)), max_size=20),
        st.booleans(),
        st.data(),
    )
    def test_anySpots(
        self, version: int, spots: list[tuple[int, bytes]], partial: bool, data: st.DataObject
    ) -> None:
        """Spots of garbage anywhere, files cut anywhere: no error, and no end beyond the files."""
        maker = WalMaker(version)
        maker.record(500)
        maker.record(1_200_000)
        maker.record(500)
        maker.switch()
        maker.record(100)
        files = disk(maker, partial=partial)
        for name in list(files.content):
            content = bytearray(files.content[name] or b"")
            for place, spot in spots:
                content[place : place + len(spot)] = spot
            files.content[name] = bytes(
                content[: data.draw(st.sampled_from([SEGMENT, SEGMENT, 100_000, 8192, 24, 0]))]
            )
        end = end_on(files)
        if end is not None:
            self.assertLessEqual(end.position, maker.position)
            again = end_on(files, resume=end)
            assert again is not None
            self.assertEqual(end.position, again.position)

    def test_brokenRecordAcrossSegments(self) -> None:
        """A later look does not step over a broken record that the first look stopped at."""
        maker = WalMaker(80400)
        maker.record(500)
        maker.record(1_200_000)
        maker.record(500)
        maker.switch()
        maker.record(100)
        files = disk(maker)
        for number in (1, 2):
            content = bytearray(files.content[maker.name(number)] or b"")
            content[32] = 0
            files.content[maker.name(number)] = bytes(content)
        files.content[maker.name(3)] = bytes(files.content[maker.name(3)] or b"")[:24]
        end = end_on(files)
        assert end is not None
        again = end_on(files, resume=end)
        assert again is not None
        self.assertEqual(end.position, again.position)

    @SOME
    @given(VERSIONS, st.binary(max_size=400), st.binary(max_size=64), st.integers(64, 3000))
    def test_anyBytesBehindALongHeader(self, version: int, content: bytes, patch: bytes, place: int) -> None:
        """Whatever follows a segment's first header gives an end within the file, or none."""
        maker = WalMaker(version)
        maker.record(5000)
        image = bytearray(maker.image(1)[:16384])
        image[40 : 40 + len(content)] = content
        image[place : place + len(patch)] = patch
        end = end_on(MemoryFiles({maker.name(1): bytes(image)}))
        assert end is not None
        self.assertTrue(SEGMENT <= end.position <= SEGMENT + len(image))
