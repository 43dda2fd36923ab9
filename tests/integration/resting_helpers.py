"""What is seen of a process while it has nothing to do, or can do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def seen_at_rest(pid: int, look: Callable[[], T]) -> T | None:
    """
    Return what *look* finds, or ``None`` if the process has run meanwhile, or could have.

    What moves at a process's own pace is not over because it has not moved for a while: the machine may be
    busy with others.  When all its threads sleep it is.
    """
    before = _threads(pid)
    seen = look()
    after = _threads(pid)
    return seen if before == after and all("State:\tS (sleeping)" in thread for thread in after) else None


def _threads(pid: int) -> list[list[str]]:
    """Return of each thread what it does, and how often it has begun and ended doing it."""
    wanted = ("Pid:", "State:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            found.append([])
        else:
            found.append([line for line in lines if line.startswith(wanted)])
    return found
