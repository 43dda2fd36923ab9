"""What the tests of the log of connections share: a server, and the lines that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console_helpers import SYNC, ConsoleServer
from protocol_helpers import Client, ProtocolTestCase
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from walsender.auth import Authenticated, ConnectionRequest, IAuthenticationClient, IAuthorizer
from walsender.errors import InvalidAuthorization
from walsender.sender import Logged
from walsender.server_log import ServerLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsender.wire.extended import ExtendedMessage

EVERYTHING = Logged(("receipt", "authentication", "authorization"), True, True)
BAD = "a\nFATAL:  b\x1b[31m"


class Lines:
    """A place of the log, in memory."""

    keeps_time = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """See `walsender.server_log.ILogPlace`."""
        self.lines += lines


@implementer(IAuthorizer)
class Knowing:
    """Lets in everybody but mallory, and says how."""

    how: Authenticated | None = Authenticated("trust", None, "/etc/pg_hba.conf:7")

    async def authenticate(
        self, request: ConnectionRequest, client: IAuthenticationClient
    ) -> Authenticated | None:
        """See `IAuthorizer`."""
        if request.user == "mallory":
            raise InvalidAuthorization("go away", hint="far away", log_detail="she is known")
        return self.how

    def may_replicate(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return True

    def may_administer(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return True


class LogTestCase(ProtocolTestCase):
    """Has a server and what it logs."""

    def setUp(self) -> None:
        """Start."""
        self.authorizer = Knowing()
        self.server = ConsoleServer(self.scripted_source(0x300000), authorizer=self.authorizer)
        self.server.factory.logged = EVERYTHING
        self.place = Lines()
        self.log = ServerLog(self.place)
        self.configure()
        self.events: list[dict[str, Any]] = []
        for observer in (self.log, self.events.append):
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)

    def configure(self, destination: str = "stderr", prefix: str = "[%p] %q%u@%h %a ") -> None:
        """Have lines of another form."""
        self.log.configure(destination=destination, line_prefix=prefix, min_messages="warning")

    def lines(self) -> list[str]:
        """Return what has been logged since the last call."""
        lines, self.place.lines = self.place.lines, []
        return lines

    def log_only_errors(self) -> None:
        """Log no coming and going and no commands, and who it is about in no line."""
        self.server.factory.logged = Logged()
        self.configure(prefix="")

    @staticmethod
    def ask_extended(client: Client, *messages: ExtendedMessage) -> None:
        """Send messages of the extended protocol and a Sync."""
        client.send(b"".join(each.encode() for each in messages) + SYNC)
        client.receive()
