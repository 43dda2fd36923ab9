"""The console: what a server says of itself in SQL, as PostgreSQL would, and what it can be told."""

from __future__ import annotations

from .console import MAX_SESSIONS, Console
from .snapshot import ServerView

__all__ = ["MAX_SESSIONS", "Console", "ServerView"]
