"""Learning that a transport has written all that it was given, which transports tell pull producers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable


@implementer(IPullProducer)
class TransportDrained:
    """
    Calls *drained* once the transport has written everything that it was given.

    The first ``resumeProducing`` comes on registration, the second when all is written; that
    one comes only if something was left to write.

    :param lost: the connection is lost instead.
    """

    def __init__(self, drained: Callable[[], None], lost: Callable[[], None]) -> None:
        self._drained = drained
        self._lost = lost
        self._registered = False

    def resumeProducing(self) -> None:
        """See `IPullProducer`."""
        if self._registered:
            self._drained()
        self._registered = True

    def stopProducing(self) -> None:
        """See `IPullProducer`."""
        self._lost()
