"""
``/``: the page for people, one file with all that it needs.

It is complete as it comes, so that it says what there is without JavaScript too; with it, the page
lives on `walsender.status.events`.  Its rows stand once, in ``page.html``: here they are filled by the
names in ``data-f``, and the page's script fills copies of them by the same names.

Whatever clients have chosen (names of applications, users and slots) is text here and there, never
markup: Twisted's templates escape it, and the script knows `textContent` only.  Should that ever
fail, the Content-Security-Policy runs no script and no style but those that are named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure
from twisted.web.template import Element, Tag, XMLString, flattenString, renderer

from .answers import Answer
from .words import NONE, age, moment, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from twisted.web.iweb import IRequest

MOST_ROWS: Final = 200
"""How many standbys, slots, timelines and ranges are shown at most."""

_NAMED_GAPS: Final = 3
_FILES: Final = files(__package__)


def _content(*names: str) -> str:
    return "\n".join(_FILES.joinpath(name).read_text("utf-8") for name in names)


_STYLE: Final = _content("page.css")
_SCRIPT: Final = _content("words.js", "chart.js", "page.js")
_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%232f6b9a'/%3E%3Cpath d='M3 8h4m0 0 5-4M7 8h5m-5 0 5 4'"
    " stroke='%23fff' stroke-width='1.6' fill='none'/%3E%3C/svg%3E"
)
_HEAD: Final = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>walsender</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<link rel="icon" href="{_ICON}">
<style>{_STYLE}</style>
</head>
""".encode()
_TAIL: Final = f'\n<script type="module">{_SCRIPT}</script>\n</html>\n'.encode()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(_SCRIPT)}",
        f"style-src {_hash(_STYLE)}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = (
    (b"Content-Security-Policy", _POLICY.encode()),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)


def condition(standby: Mapping[str, Any], most_lag: int) -> tuple[str, str]:
    """
    Return ``ok``, ``warn`` or ``bad``, and in words what is the matter with a standby.

    :param most_lag: bytes that it may be behind.
    """
    if (standby["lag_bytes"] or 0) > most_lag:
        return "bad", f"{size(standby['lag_bytes'])} behind"
    if standby["state"] == "streaming":
        return "ok", "streaming"
    return ("warn" if standby["state"] == "catchup" else "bad"), standby["state"]


class _Body(Element):
    """
    What is different each time.

    :param about: the server, as `walsender.status.document.document` describes it.
    """

    loader = XMLString(_content("page.html"))

    def __init__(self, about: dict[str, Any], most_lag: int) -> None:
        Element.__init__(self)
        self._about = about
        self._most_lag = most_lag

    @renderer
    def body(self, request: IRequest | None, tag: Tag) -> Tag:
        """Fill in what there is once."""
        if _is_cut_off(self._about):
            tag(**{"class": "cut-off"})
        return _fill(tag(**{"data-lag-limit": str(self._most_lag)}), "data-fact", _facts(self._about))

    @renderer
    def upstream(self, request: IRequest | None, tag: Tag) -> Tag:
        """Mark whether there is one, where there should be."""
        kind = "bad" if _is_cut_off(self._about) else "ok"
        return _fill(tag(**{"class": f"condition {kind}"}), "", {"class": kind})

    @renderer
    def standbys(self, request: IRequest | None, tag: Tag) -> Iterator[Tag]:
        """Return a row of each standby, after one that is the pattern of more."""
        found = sorted(self._about.get("standbys", ()), key=itemgetter("application_name", "pid"))
        return _rows(tag, (_standby(one, self._about, self._most_lag) for one in found))

    @renderer
    def slots(self, request: IRequest | None, tag: Tag) -> Iterator[Tag]:
        """Likewise of the slots."""
        return _rows(tag, map(_slot, sorted(self._about.get("slots", ()), key=itemgetter("slot_name"))))

    @renderer
    def timelines(self, request: IRequest | None, tag: Tag) -> Iterator[Tag]:
        """Likewise of the timelines, the newest first."""
        segment_size = self._about.get("segment_size", 0)
        found = reversed(self._about.get("timelines", ()))
        return _rows(tag, (_timeline(one, segment_size) for one in found))


def _rows(tag: Tag, rows: Iterator[Mapping[str, str]]) -> Iterator[Tag]:
    """Yield the content of *tag* as a pattern for the script, then once for each of *rows*."""
    (pattern,) = (child for child in tag.children if isinstance(child, Tag))
    yield Tag("template")(pattern.clone())
    for row in rows:
        yield _fill(pattern.clone(), "data-f", row)(**{"class": row["class"]})


def _fill(tag: Tag, attribute: str, texts: Mapping[str, str]) -> Tag:
    """Write texts into *tag* and all in it by the names that their *attribute* has, and return it."""
    name = tag.attributes.get(attribute)
    if isinstance(name, str) and name in texts:
        tag.children = [texts[name]]
    if tag.tagName == "use" and "class" in texts:
        tag.attributes["href"] = f"#mark-{texts['class']}"
    for child in tag.children:
        if isinstance(child, Tag):
            _fill(child, attribute, texts)
    return tag


def _is_cut_off(about: Mapping[str, Any]) -> bool:
    return about["role"] == "relay" and about.get("upstream") is None


def _facts(about: dict[str, Any]) -> dict[str, str]:
    now = about["now"]
    upstream = about.get("upstream")
    facts = {
        "role": about["role"],
        "version": about["version"],
        "uptime": age(now - about["started_at"]),
        "read_at": moment(now),
        "standby_count": f"{about.get('standby_count', 0)} of {about['max_wal_senders']}",
        "slot_count": str(about.get("slot_count", 0)),
        "sent_bytes": size(about["sent_bytes"]),
        "live": "Starting: there is no WAL to serve yet." if about["state"] == "starting" else "Not live.",
    }
    for name in ("system_identifier", "timeline", "flush_lsn"):
        facts[name] = str(about.get(name, NONE))
    facts |= {f"upstream_{name}": NONE for name in ("address", "lsn", "lag", "slot", "timeline")}
    if about["role"] != "relay":
        facts["upstream_state"] = "a directory of WAL"
    elif upstream is None:
        lost = about["not_receiving"]
        since = "" if lost is None else f" for {age(now - lost['since'])}"
        facts["upstream_state"] = f"nothing received{since}"
        facts["upstream_error"] = (lost and lost["error"]) or ""
    else:
        facts |= {
            "upstream_state": "streaming",
            "upstream_address": _address(upstream.get("host"), upstream.get("port")),
            "upstream_lsn": upstream["latest_end_lsn"],
            "upstream_lag": size(upstream["lag_bytes"]),
            "upstream_slot": upstream["slot_name"] or NONE,
            "upstream_timeline": str(upstream["timeline"]),
        }
    return facts


def _address(host: str | None, port: object) -> str:
    if not host:
        return "[local]"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _standby(standby: dict[str, Any], about: dict[str, Any], most_lag: int) -> dict[str, str]:
    kind, words = condition(standby, most_lag)
    lsns = {name: standby[name] or NONE for name in ("sent_lsn", "write_lsn", "flush_lsn", "replay_lsn")}
    return {
        **lsns,
        "class": kind,
        "condition": words,
        "application_name": standby["application_name"] or "(no name)",
        "usename": standby["usename"],
        "client": _address(standby["client_addr"], standby["client_port"]),
        "reached": standby["replay_lsn"] or standby["write_lsn"] or standby["sent_lsn"] or NONE,
        "lag": size(standby["lag_bytes"]),
        "delay": seconds(standby["replay_lag"] if standby["replay_lsn"] else standby["write_lag"]),
        "sent": size(standby["sent_bytes"]),
        "since": age(about["now"] - standby["backend_start"]),
    }


def _slot(slot: dict[str, Any]) -> dict[str, str]:
    lost, active = slot["wal_status"] == "lost", slot["active_pid"] is not None
    return {
        "class": "bad" if lost else "ok" if active else "warn",
        "slot_name": slot["slot_name"],
        "active": "active" if active else "inactive",
        "wal_status": slot["wal_status"] or NONE,
        "restart_lsn": slot["restart_lsn"] or NONE,
        "retained": size(slot["retained_bytes"]),
        "safe": size(slot["safe_wal_size"]),
    }


def _timeline(timeline: dict[str, Any], segment_size: int) -> dict[str, str]:
    ranges = timeline["ranges"]
    return {
        "class": "bad" if timeline["missing"] else "ok",
        "timeline": str(timeline["timeline"]),
        "origin": f"from {timeline['parent']} at {timeline['switchpoint']}" if timeline["parent"] else "",
        "start": ranges[0]["start_lsn"],
        "end": ranges[-1]["end_lsn"],
        "held": size(timeline["segments"] * segment_size),
        "gaps": _gaps(timeline["gaps"]),
    }


def _gaps(gaps: Sequence[Mapping[str, str]]) -> str:
    newest = [f"{gap['start_lsn']} to {gap['end_lsn']}" for gap in gaps[-_NAMED_GAPS:]]
    others = len(gaps) - len(newest)
    return ", ".join([*([f"{others} more"] if others else []), *newest]) or "no gap"


def page_answer(about: dict[str, Any], most_lag: int) -> Answer:
    """
    Return the page.

    It may take some milliseconds, and belongs in a thread.

    :param about: as `walsender.status.document.document` returns it, with `MOST_ROWS`.
    :param most_lag: bytes that a standby may be behind before it is shown in red.
    """
    found: list[bytes | Failure] = []
    flattenString(None, _Body(about, most_lag)).addBoth(found.append)
    (body,) = found  # nothing in it has to be waited for
    if isinstance(body, Failure):
        body.raiseException()
    return Answer("text/html; charset=utf-8", _HEAD + body + _TAIL, headers=_HEADERS)
