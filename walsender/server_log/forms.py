"""The two forms of a message: lines of text behind a prefix, and one line of JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from .line_prefix import backend_type, session_id, timestamp

if TYPE_CHECKING:
    from .line_prefix import LinePrefix
    from .record import Record


def text_lines(record: Record, prefix: LinePrefix) -> list[str]:
    """
    Return *record* as PostgreSQL writes it to standard error.

    Where a text has several lines the others begin with a tab, so that nobody takes one for a message.
    """
    before = prefix.fill(record)
    place = f" at character {record.position}" if record.position else ""
    lines = [f"{before}{record.severity}:  {record.message}{place}"]
    if record.detail is not None:
        lines.append(f"{before}DETAIL:  {record.detail}")
    if record.hint is not None:
        lines.append(f"{before}HINT:  {record.hint}")
    for kind, text in (("CONTEXT", record.context), ("STATEMENT", record.statement)):
        if text is not None:
            first, *rest = text.split("\n")
            lines += [f"{before}{kind}:  {first}", *(f"\t{line}" for line in rest)]
    return lines


def json_lines(record: Record) -> list[str]:
    """
    Return *record* as PostgreSQL's ``jsonlog`` has it; keys without a value are left out.

    Source: PostgreSQL's documentation, "Using JSON-Format Log Output".
    """
    session = record.session
    fields: dict[str, str | int | None] = {"timestamp": timestamp(record.time)}
    if session is not None:
        fields["user"] = session.user
        fields["dbname"] = session.database
    fields["pid"] = os.getpid() if session is None else session.process_id
    if session is not None:
        fields["remote_host"] = session.host
        fields["remote_port"] = session.port if session.port >= 0 else None
    fields["session_id"] = session_id(session)
    if session is not None:
        fields["session_start"] = timestamp(session.started_at, milliseconds=False)
    fields["error_severity"] = record.severity
    fields["state_code"] = record.sqlstate
    fields["message"] = record.message
    fields["detail"] = record.detail
    fields["hint"] = record.hint
    fields["context"] = record.context
    fields["statement"] = record.statement
    fields["cursor_position"] = record.position or None
    if session is not None:
        fields["application_name"] = session.application_name
    fields["backend_type"] = backend_type(session)
    # In ASCII: names may hold what no encoding has.
    return [json.dumps({name: value for name, value in fields.items() if value not in {None, ""}})]
