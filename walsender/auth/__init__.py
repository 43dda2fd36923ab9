"""Who may come in."""

from walsender.auth.local import LocalAuthorizer
from walsender.auth.interfaces import ConnectionRequest, IAuthorizer

__all__ = ["ConnectionRequest", "IAuthorizer", "LocalAuthorizer"]
