"""`ISupply`: where WAL comes from, of whichever form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred

    from walsender.replication_slots import Availability
    from walsender.settings import Settings
    from walsender.source.held import HeldWal
    from walsender.timings import Timings
    from walsender.upstream import NotReceiving, ReceiverStatus


class ISupply(Protocol):
    """A source and what fills it."""

    @property
    def source(self) -> HeldWal:
        """What the senders read from."""

    @property
    def timings(self) -> Timings:
        """How long the disk takes."""

    def start(self) -> Deferred[None]:
        """
        Begin; fires when WAL can be served, or when it is known that there is none yet.

        :raises walsender.errors.ConfigurationError: it cannot begin.
        """

    def stop(self) -> Deferred[None]:
        """End; fires when nothing runs any more."""

    @property
    def receiving(self) -> ReceiverStatus | None:
        """What comes from an upstream at the moment."""

    @property
    def not_receiving(self) -> NotReceiving | None:
        """Why nothing comes from an upstream that there is."""

    def availability(self) -> Mapping[str, Availability]:
        """Return of each slot how sure it is of its WAL."""

    def reconfigure(self, settings: Settings) -> None:
        """
        Take over what can be changed while running.

        :raises walsender.errors.ConfigurationError: that makes no sense; nothing has changed.
        """
