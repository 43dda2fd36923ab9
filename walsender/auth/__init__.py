"""Who may come in."""

from walsender.auth.interfaces import ConnectionRequest, IAuthorizer
from walsender.auth.local import LocalAuthorizer

__all__ = ["ConnectionRequest", "IAuthorizer", "LocalAuthorizer"]
