"""The rule that holds where nothing is configured: this machine only."""

from __future__ import annotations

from zope.interface import implementer

from walsender.auth.authorizer import no_entry
from walsender.auth.interfaces import Authenticated, ConnectionRequest, IAuthenticationClient, IAuthorizer


@implementer(IAuthorizer)
class LocalAuthorizer:
    """
    Lets in loopback and unix sockets, by the *peer's* address, and nobody else.

    Not by the address that is listened on: a listener on all interfaces must
    not let strangers in.
    """

    async def authenticate(self, request: ConnectionRequest, client: IAuthenticationClient) -> Authenticated:
        """
        See `IAuthorizer`.

        Text: PostgreSQL, src/backend/libpq/auth.c, ClientAuthentication.
        """
        if request.peer is not None and not request.peer.is_loopback:
            raise no_entry(request)
        return Authenticated("trust")

    def may_replicate(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return True

    def may_administer(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`: who works on this machine."""
        return True
