"""
walsender beside another Twisted service, in one process.

    WALSENDER_CONFIG=/etc/walsender.conf twistd -ny walsender.tac

The other service tells whoever connects to it which standbys there are, one per
line, and hangs up.  Signals are twistd's own here: SIGTERM still ends every
stream in good order, but the exit status is that of the signal, and neither
SIGHUP nor SIGUSR2 means anything.  `WalSenderService(..., handle_signals=True)`
changes that.
"""

import os

from twisted.application.service import Application
from twisted.application.strports import service as listening_service
from twisted.internet import reactor  # noqa: TID253 (twistd has chosen one by now)
from twisted.internet.protocol import Factory, Protocol

from walsender.service import WalSenderService
from walsender.settings import Settings

settings = Settings.load((), os.environ.get("WALSENDER_CONFIG", "/etc/walsender.conf"))
sender = WalSenderService(reactor, settings)


class Standbys(Protocol):
    """Says what each standby has received, then hangs up."""

    def connectionMade(self) -> None:
        """See `twisted.internet.interfaces.IProtocol`."""
        for entry in sender.factory.slot_table:
            line = f"{entry.application_name} {entry.state} {entry.sent_lsn}\n"
            self.transport.write(line.encode(errors="replace"))
        self.transport.loseConnection()


application = Application("walsender")
sender.setServiceParent(application)
listening_service(
    os.environ.get("STANDBYS_LISTEN", "tcp:5480:interface=127.0.0.1"), Factory.forProtocol(Standbys)
).setServiceParent(application)
