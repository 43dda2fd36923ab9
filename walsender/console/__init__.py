"""The console: what a server says of itself in SQL, as PostgreSQL would, and what it can be told."""

from __future__ import annotations

from .console import Console
from .snapshot import ServerView

__all__ = ["Console", "ServerView"]
