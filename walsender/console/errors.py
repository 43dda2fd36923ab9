"""What a client of the console may be told beside what is wrong with a query."""

from __future__ import annotations

from walsender.errors import WalsenderError


class ReadOnly(WalsenderError, sqlstate="25006"):
    """The statement would change something."""


class TransactionAborted(WalsenderError, sqlstate="25P02"):
    """After an error a transaction can only be ended."""


class NoTransaction(WalsenderError, sqlstate="25P01"):
    """There is no transaction."""


class NoSavepoint(WalsenderError, sqlstate="3B001"):
    """There is no savepoint of that name."""


class InTransaction(WalsenderError, sqlstate="25001"):
    """The statement cannot be part of a transaction."""


class InvalidBind(WalsenderError, sqlstate="08P01"):
    """A Bind does not fit its statement."""


class NoStatement(WalsenderError, sqlstate="26000"):
    """There is no prepared statement of that name."""


class NoPortal(WalsenderError, sqlstate="34000"):
    """There is no portal of that name."""


class DuplicateStatement(WalsenderError, sqlstate="42P05"):
    """There is a prepared statement of that name."""


class TooManyStatements(WalsenderError, sqlstate="53000"):
    """A session keeps too many prepared statements or portals."""


class SeveralStatements(WalsenderError, sqlstate="42601"):
    """A prepared statement is one."""


class InsufficientRight(WalsenderError, sqlstate="42501"):
    """The user may look, and not act."""


class NullNotAllowed(WalsenderError, sqlstate="22004"):
    """An argument must not be NULL."""
