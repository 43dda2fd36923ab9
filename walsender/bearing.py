"""
How the program shows itself to the machine that it runs on: what it does, in a few words, and to whom.

For a program of its own only: an embedded service leaves the process to its owner.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.supervision import ProcessTitle, ServiceManager, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender import IServerReactor, SlotTable
    from walsender.settings import Settings
    from walsender.supply import ISupply

# So long a disk may take before it is worth saying, in seconds.
_LONG: Final = 5.0


@dataclass(slots=True)
class Bearing:
    """
    What a service does.

    :ivar doing: what all see instead of what the standbys do.
    """

    supply: ISupply
    slot_table: SlotTable
    is_relay: bool
    doing: str = ""

    def activity(self) -> str:
        """Return it, as the process title says it."""
        if self.doing or not self.supply.source.ready:
            return self.doing or "waiting for WAL"
        activity = self.slot_table.activity()
        if self.is_relay and self.supply.receiving is None:
            activity += ", no upstream"
        if (stuck := self.supply.timings.stuck()) >= _LONG:
            activity += f", disk silent for {stuck:.0f} s"
        return activity

    def supervisor(self, reactor: IServerReactor, settings: Callable[[], Settings]) -> Supervisor:
        """Return who tells systemd and shows the title, as far as there are such."""
        title = ProcessTitle.of_this_process(settings().cluster_name)
        return Supervisor(
            reactor,
            self.activity,
            self.supply.timings.stuck,
            ServiceManager.from_environment(os.environ),
            title,
            lambda: settings().update_process_title,
        )
