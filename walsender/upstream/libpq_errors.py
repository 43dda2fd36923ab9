"""What libpq says, as errors of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from psycopg.pq import DiagnosticField

from walsender.upstream.interfaces import UpstreamError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

# "FATAL:  ", at the start of a line or behind the name of the host that said it.
_SEVERITY: Final = re.compile(r"(^|failed: )\w+:  ")


def failure_lines(message: bytes) -> list[str]:
    """
    Return what libpq says of a connection, one text for each host that it has tried.

    Its continuation lines, which begin with a tabulator, guess at causes; they are left out.
    """
    lines = message.decode(errors="replace").splitlines()
    return [
        _SEVERITY.sub(r"\1", line).strip() for line in lines if line.strip() and not line.startswith("\t")
    ]


def connection_error(connection: PGconn) -> UpstreamError:
    """Return why *connection* is of no more use."""
    lines = failure_lines(connection.error_message)
    return UpstreamError("; ".join(lines) or "the connection to the upstream is lost")


def result_error(result: PGresult) -> UpstreamError:
    """Return the error that *result* reports."""
    message, sqlstate, detail, hint = (
        None if field is None else field.decode(errors="replace")
        for field in map(
            result.error_field,
            (
                DiagnosticField.MESSAGE_PRIMARY,
                DiagnosticField.SQLSTATE,
                DiagnosticField.MESSAGE_DETAIL,
                DiagnosticField.MESSAGE_HINT,
            ),
        )
    )
    if message is None:  # libpq's own, not the server's
        message = "; ".join(failure_lines(result.error_message))
    return UpstreamError(" ".join(message.split()), sqlstate or "", detail=detail, hint=hint)


def severity(result: PGresult) -> str:
    """Return the severity of a notice or error: ``WARNING``, ``FATAL``."""
    return (result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) or b"").decode()
