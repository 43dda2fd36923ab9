"""What the demo shows: a table in a terminal, a line a second anywhere else."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from walsender.lsn import LSN


class Output(Protocol):
    """Where the demo writes: a terminal or anything else."""

    def write(self, text: str, /) -> object:
        """Write *text*."""

    def flush(self) -> object:
        """Hand over what was written."""

    def isatty(self) -> bool:
        """Return whether this is a terminal."""


@dataclass(frozen=True, slots=True)
class StandbySnapshot:
    """
    A standby.

    :ivar received: up to where it has WAL.
    :ivar replayed: up to where that is in its tables.
    :ivar delay_s: how old the last transaction is that it has replayed.
    :ivar rows: how many it has.
    :ivar state: what the relay says of it, as ``pg_stat_replication``; empty if it is not connected.
    """

    received: LSN
    replayed: LSN
    delay_s: float
    rows: int
    state: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    Everybody's position, asked for from the standbys upward, so that none seems ahead of its source.

    :ivar copy: what pg_receivewal has written.
    :ivar copy_state: of pg_receivewal, as that of a standby.
    """

    elapsed_s: float
    primary: LSN
    rows: int
    relay: LSN
    copy: LSN
    copy_state: str
    standbys: Mapping[str, StandbySnapshot]
    kills: int
    page: str

    def behind(self, lsn: LSN) -> int:
        """Return by how many bytes *lsn* is behind the primary."""
        return max(0, self.primary - lsn)

    def line(self) -> str:
        """Return all of it in one line."""
        standbys = "".join(
            f"  {name} received {one.received} replayed {one.replayed}"
            f" behind {self.behind(one.replayed)} B {one.delay_s:.3f} s"
            for name, one in self.standbys.items()
        )
        rows = ", ".join(str(one.rows) for one in self.standbys.values())
        return (
            f"{self.elapsed_s:4.0f} s  primary {self.primary}  relay {self.relay}{standbys}"
            f"  pg_receivewal {self.copy}  rows {rows} of {self.rows}  kills {self.kills}"
        )

    def table(self, keys: str) -> list[str]:
        """
        Return all of it as lines of a table.

        :param keys: what can be pressed.
        """

        def row(who: str, lsn: LSN, remark: str) -> str:
            return f"  {who:22}{lsn!s:12}{self.behind(lsn):>12,} B  {remark}".rstrip()

        standbys = [
            line
            for name, one in self.standbys.items()
            for line in (
                row(f"{name} has received", one.received, one.state or "not connected"),
                row(f"{name} has replayed", one.replayed, f"{one.rows:,} rows, {one.delay_s:.3f} s late"),
            )
        ]
        return [
            "",
            f"  {f'after {self.elapsed_s:.0f} s':22}{'position':12}{'behind':>14}",
            row("primary has flushed", self.primary, f"{self.rows:,} rows"),
            row("relay has flushed", self.relay, f"killed {self.kills} x" if self.kills else ""),
            *standbys,
            row("pg_receivewal wrote", self.copy, self.copy_state or "not connected, waits 5 s"),
            "",
            f"  {self.page}   {keys}",
        ]


class Display:
    """
    Shows snapshots: in place in a terminal, a line each otherwise.

    :ivar keys: what can be pressed.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._in_place = output.isatty()
        self._painted = 0
        self.keys = ""

    def say(self, line: str) -> None:
        """Show one line that stays."""
        self._output.write(f"{line}\n")
        self._output.flush()
        self._painted = 0

    def show(self, snapshot: Snapshot) -> None:
        """Show where everybody is now."""
        if not self._in_place:
            self.say(snapshot.line())
            return
        # A line that the terminal breaks would be two to go up.
        width = shutil.get_terminal_size().columns
        lines = [line[:width] for line in snapshot.table(self.keys)]
        up = f"\x1b[{self._painted}A" if self._painted else ""
        self._output.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._output.flush()
        self._painted = len(lines)
