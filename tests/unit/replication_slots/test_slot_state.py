"""Names of slots, and the bytes in which one is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DataCorrupted, WalsenderError
from walsender.lsn import LSN
from walsender.replication_slots import WAL_REMOVED, SlotState, check_name, decode_state, encode_state

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=63)
STATES = st.builds(
    SlotState, NAMES, st.builds(LSN, st.integers(0, (1 << 64) - 1)), st.sampled_from(["", WAL_REMOVED])
)

SAMPLE = (
    b"walsender replication slot 1\n"
    b"name: standby_1\n"
    b"restart_lsn: 0/3000000\n"
    b"crc32c: 591730F7\n"  # `crc32c` below agrees
)


def crc32c(data: bytes) -> int:
    """Return the checksum bit by bit, without the library."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_checksum(body: bytes) -> bytes:
    """Return a file of *body* whose checksum is right."""
    return body + b"crc32c: %08X\n" % crc32c(body)


class NameTests(SynchronousTestCase):
    def test_goodNames(self) -> None:
        """Lower case letters, digits and underscores, up to 63 of them."""
        for name in ("a", "_", "0", "pg_receivewal_1", "x" * 63):
            check_name(name)

    def test_badNames(self) -> None:
        """Each other name has its error, as PostgreSQL words it."""
        for name, sqlstate, message in (
            ("", "42602", 'replication slot name "" is too short'),
            ("x" * 64, "42622", f'replication slot name "{"x" * 64}" is too long'),
            ("ä" * 32, "42622", f'replication slot name "{"ä" * 32}" is too long'),
            *(
                (name, "42602", f'replication slot name "{name}" contains invalid character')
                for name in ("A", "a-b", "../a", "a/b", ".", "a b", "a\n", "ä", "a.slot", "a\0b")
            ),
        ):
            error = self.assertRaises(WalsenderError, check_name, name)
            self.assertEqual((sqlstate, message), (error.sqlstate, error.message))
            self.assertEqual("invalid character" in message, error.hint is not None)

    def test_reservedNames(self) -> None:
        """What the server keeps for itself is refused with a code of its own."""
        error = self.assertRaises(WalsenderError, check_name, "mine", {"mine"})
        self.assertEqual(
            ("42939", 'replication slot name "mine" is reserved'), (error.sqlstate, error.message)
        )


class FormatTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """The format does not change by accident: slots outlive the program."""
        self.assertEqual(SAMPLE, encode_state(SlotState("standby_1", LSN(0x3000000))))
        self.assertEqual(SAMPLE, with_checksum(SAMPLE[: SAMPLE.index(b"crc32c")]))
        lost = SlotState("standby_1", LSN(0), WAL_REMOVED)
        lines = b"name: standby_1\nrestart_lsn: 0/0\ninvalidation_reason: wal_removed\n"
        self.assertEqual(with_checksum(b"walsender replication slot 1\n" + lines), encode_state(lost))

    @given(STATES)
    def test_whatIsWrittenIsRead(self, state: SlotState) -> None:
        """Any state comes back."""
        self.assertEqual(state, decode_state(encode_state(state)))

    @given(STATES, st.data())
    def test_anyChangeIsDamage(self, state: SlotState, data: st.DataObject) -> None:
        """A file that is cut off, or has another byte anywhere, is refused."""
        content = encode_state(state)
        at = data.draw(st.integers(0, len(content) - 1))
        other = data.draw(st.integers(1, 255))
        changed = content[:at] + bytes([content[at] ^ other]) + content[at + 1 :]
        for damaged in (changed, content[:at], content + b"\n", content + content):
            self.assertRaises(DataCorrupted, decode_state, damaged)

    @given(st.binary(max_size=300))
    def test_anyBytes(self, content: bytes) -> None:
        """Whatever a file holds, it is a state or damaged, also if its checksum is right."""
        for whole in (content, with_checksum(b"walsender replication slot 1\n" + content + b"\n")):
            try:
                state = decode_state(whole)
            except DataCorrupted:
                continue
            self.assertEqual(whole, encode_state(state))

    def test_reasons(self) -> None:
        """What is wrong is said in words that help."""
        body = SAMPLE[: SAMPLE.index(b"crc32c")]
        other = body.replace(b"3000000", b"3000001")
        for content, reason in (
            (b"", "it is no replication slot file"),
            (SAMPLE[:-1], "it is cut off or has something behind its end"),
            (
                SAMPLE.replace(b"3000000", b"3000001"),
                f"checksum mismatch: computed {crc32c(other):08X}, stored 591730F7",
            ),
            (
                with_checksum(body.replace(b"slot 1", b"slot 2")),
                "it has version 2, and this program reads version 1",
            ),
            (with_checksum(body + b"more: 1\n"), "its lines are not those of a replication slot"),
            (
                with_checksum(body.replace(b"standby_1", b"../x")),
                "its lines are not those of a replication slot",
            ),
            (with_checksum(body.replace(b"0/3", b"0/03")), "it was not written by this program"),
        ):
            error = self.assertRaises(DataCorrupted, decode_state, content)
            self.assertEqual(reason, error.message)
