"""
The log as an administrator of PostgreSQL knows it: lines with a prefix, or JSON, from Twisted's events.

What is logged is said anywhere, by `twisted.logger.Logger`; how it looks is decided here, by an
observer for ``twistd walsender``.  A program that embeds walsender keeps its own observers.

Of an event these keys mean something beside Twisted's:

* ``session``: an `ILogSession`, whom it is about.  A format may begin with ``{session} ``, for
  other observers; our lines have it in their prefix instead.
* ``severity``: PostgreSQL's level, where Twisted's does not say it (``FATAL``).  A format may go on with
  ``{severity}: ``.
* ``sqlstate``, ``detail`` and ``hint``.  A format may end with ``{more}``, which has the last two for
  other observers.
"""

from .observer import ServerLog
from .places import ILogPlace, StreamPlace, place_for
from .record import ILogSession

__all__ = ["ILogPlace", "ILogSession", "ServerLog", "StreamPlace", "place_for"]
