"""The ports of a service: opened at the start, told of when it serves, closed at the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from walsender.preflight import listen_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

    from walsender.errors import ConfigurationError
    from walsender.settings import Settings


class Ports:
    """
    Those of one setting.

    :param parameter: the setting, for messages.
    """

    def __init__(self, settings: Settings, parameter: str) -> None:
        self._settings = settings
        self._parameter = parameter
        self._open: list[IListeningPort] = []

    def open(
        self, endpoints: Iterable[tuple[str, IStreamServerEndpoint, IProtocolFactory]]
    ) -> list[ConfigurationError]:
        """
        Listen, and return what went wrong.

        Nothing is raised in a callback, as what ends the program would be: a Deferred keeps even SystemExit
        to itself.  Twisted's endpoints answer at once; another's that does not is refused.
        """
        refused: list[ConfigurationError] = []
        for description, endpoint, factory in endpoints:
            answer = _Answer()
            endpoint.listen(factory).addCallbacks(answer.port_opened, answer.failed)
            if answer.port is not None:
                self._open.append(answer.port)
            else:
                answer.too_late = True
                refused.append(listen_error(self._settings, description, answer.failure, self._parameter))
        return refused

    def addresses(self) -> list[str]:
        """Return what is listened on, for the log."""
        return [_address_text(port.getHost()) for port in self._open]

    def close(self) -> Deferred[Any]:
        """Listen no more; fires when that is so.  Harmless when repeated."""
        ports, self._open = self._open, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])


class _Answer:
    """What an endpoint says; a port that comes when nobody waits for it any more is closed."""

    def __init__(self) -> None:
        self.port: IListeningPort | None = None
        self.failure = Failure(TimeoutError("it does not answer at once"))
        self.too_late = False

    def port_opened(self, port: IListeningPort) -> Deferred[Any] | None:
        if self.too_late:
            return maybeDeferred(port.stopListening)
        self.port = port
        return None

    def failed(self, failure: Failure) -> None:
        self.failure = failure


def _address_text(address: object) -> str:
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    assert isinstance(address, UNIXAddress), "streams have these addresses"
    return f'unix socket "{os.fsdecode(address.name or b"")}"'
