"""Streams over the simulated network that let the thread of the commits send, as those on sockets do."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from walsender.sender import WalSenderFactory
from walsender.sender.page_cache import PageCache
from walsender.sender.transport_consumer import TransportConsumer
from walsender.simulate.network import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.interfaces import IClientTransport, IWalConsumer
    from walsender.source import Permit


class LendingConsumer(TransportConsumer):
    """
    A transport's consumer that lends it.

    :param sent: called when something was sent by a permit.
    """

    def __init__(self, end: End, page_cache: PageCache, sent: Callable[[], object]) -> None:
        super().__init__(cast("IClientTransport", end), page_cache)
        self._end = end
        self._sent = sent
        self._lent: Permit | None = None

    def write(self, data: bytes) -> None:
        """See `IWalConsumer`."""
        assert self._lent is None, "another thread may be sending"
        super().write(data)

    def lend(self, permit: Permit) -> bool:
        """See `IWalConsumer`."""
        if self._producer is None or self._transport_full or self._reading or self._end.buffered:
            return False
        permit.send = self._send_at_once
        self._lent = permit
        return True

    def _send_at_once(self, data: bytes) -> int:
        self._sent()
        return self._end.send_at_once(data)

    def take_back(self, rest: bytes) -> None:
        """See `IWalConsumer`."""
        self._lent = None
        if rest:
            self.write(rest)

    def close(self) -> None:
        """See `IWalConsumer`."""
        if self._lent is not None:
            self._lent.withdraw()
        super().close()


class LendingFactory(WalSenderFactory):
    """
    Makes streams that lend.

    :ivar sent: called when something was sent by a permit.
    """

    sent: Callable[[], object] = bool

    def consumer(self, transport: IClientTransport) -> IWalConsumer:
        """See `WalSenderFactory`."""
        assert isinstance(transport, End), "it is of the simulated network"
        return LendingConsumer(transport, PageCache(self._run_in_thread), self.sent)


__all__ = ["LendingFactory"]
