"""What the demo shows, in a terminal and elsewhere."""

from __future__ import annotations

import io
import os

from twisted.trial.unittest import SynchronousTestCase

from walsender.demo.display import Display, Snapshot, StandbySnapshot
from walsender.lsn import LSN

SNAPSHOT = Snapshot(
    elapsed_s=12.4,
    primary=LSN(0x3000100),
    rows=1200,
    relay=LSN(0x3000100),
    copy=LSN(0x3000000),
    copy_state="",
    standbys={
        "left": StandbySnapshot(LSN(0x3000100), LSN(0x30000C0), 0.25, 1190, "streaming"),
        "right": StandbySnapshot(LSN(0x2000100), LSN(0x2000100), 0.5, 1000, ""),
    },
    kills=2,
    page="http://127.0.0.1:20000/",
)


class Terminal(io.StringIO):
    """A terminal that keeps what it is given."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class DisplayTests(SynchronousTestCase):
    """One `Display`."""

    def setUp(self) -> None:
        """Have a terminal of the usual width."""
        self.patch(os, "environ", os.environ | {"COLUMNS": "80"})

    def test_lineElsewhere(self) -> None:
        """What is no terminal gets everything in a line each time."""
        output = io.StringIO()
        display = Display(output)
        display.show(SNAPSHOT)
        display.show(SNAPSHOT)
        line = (
            "  12 s  primary 0/3000100  relay 0/3000100"
            "  left received 0/3000100 replayed 0/30000C0 behind 64 B 0.250 s"
            "  right received 0/2000100 replayed 0/2000100 behind 16777216 B 0.500 s"
            "  pg_receivewal 0/3000000  rows 1190, 1000 of 1200  kills 2\n"
        )
        self.assertEqual(output.getvalue(), 2 * line)

    def test_tableInPlace(self) -> None:
        """In a terminal the table is painted over itself."""
        output = Terminal()
        display = Display(output)
        display.keys = "k kills"
        display.show(SNAPSHOT)
        first = output.getvalue()
        lines = first.replace("\x1b[2K", "").splitlines()
        self.assertEqual(
            lines[1:],
            [
                "  after 12 s            position            behind",
                "  primary has flushed   0/3000100              0 B  1,200 rows",
                "  relay has flushed     0/3000100              0 B  killed 2 x",
                "  left has received     0/3000100              0 B  streaming",
                "  left has replayed     0/30000C0             64 B  1,190 rows, 0.250 s late",
                "  right has received    0/2000100     16,777,216 B  not connected",
                "  right has replayed    0/2000100     16,777,216 B  1,000 rows, 0.500 s late",
                "  pg_receivewal wrote   0/3000000            256 B  not connected, waits 5 s",
                "",
                "  http://127.0.0.1:20000/   k kills",
            ],
        )
        display.show(SNAPSHOT)
        self.assertEqual(output.getvalue(), first + f"\x1b[{len(lines)}A" + first)

    def test_saidStays(self) -> None:
        """The table is painted anew below a line that stays."""
        output = Terminal()
        display = Display(output)
        display.show(SNAPSHOT)
        first = output.getvalue()
        display.say("killed")
        display.show(SNAPSHOT)
        self.assertEqual(output.getvalue(), f"{first}killed\n{first}")

    def test_narrow(self) -> None:
        """No line is wider than the terminal, which would break it in two."""
        os.environ["COLUMNS"] = "40"
        output = Terminal()
        Display(output).show(SNAPSHOT)
        widths = [len(line) for line in output.getvalue().replace("\x1b[2K", "").splitlines()]
        self.assertEqual(max(widths), 40)
