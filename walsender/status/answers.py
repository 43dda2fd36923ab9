"""What requests are answered, and by which paths: GET and HEAD only, nothing to be kept by anybody."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure
    from twisted.web.server import Request

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a request is answered.

    :ivar headers: names and values beside those that every answer has.
    """

    content_type: str
    body: bytes
    status: int = 200
    headers: Iterable[tuple[bytes, bytes]] = ()


def json_answer(content: dict[str, Any], status: int = 200) -> Answer:
    """Return *content* for people and scripts."""
    return Answer(_JSON, json.dumps(content, indent=1).encode() + b"\n", status)


def text_answer(text: str, status: int) -> Answer:
    """Return one line."""
    return Answer(_TEXT, f"{text}\n".encode(), status)


def not_found(_: Request) -> Answer:
    """Answer what is not there."""
    return text_answer("not found", 404)


def _not_allowed(_: Request) -> Answer:
    return text_answer("only GET and HEAD", 405)


class Page(Resource):
    """One path; only GET and HEAD."""

    _log = Logger()

    def __init__(self, path: str, answer: Callable[[Request], Any]) -> None:
        Resource.__init__(self)
        self._path = path
        self._answer = answer

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return what stands for all that is not there."""
        return Page(self._path, not_found)

    def render(self, request: Request) -> int:
        """Answer when the answer is there, if somebody is there then."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def write(answer: Answer) -> None:
            if gone:
                return
            start(request, answer)
            request.setHeader(b"Content-Length", b"%d" % len(answer.body))
            request.write(answer.body)
            request.finish()

        allowed = request.method in {b"GET", b"HEAD"}
        if not allowed:
            request.setHeader(b"Allow", b"GET, HEAD")
        answer = self._answer if allowed else _not_allowed
        answered: Deferred[Answer] = maybeDeferred(answer, request)
        answered.addErrback(self._failed).addCallback(write)
        return NOT_DONE_YET

    def _failed(self, failure: Failure) -> Answer:
        self._log.error(
            "could not answer {path} over HTTP: {kind}: {error}",
            path=self._path,
            kind=type(failure.value).__name__,
            error=failure.getErrorMessage(),
        )
        return text_answer("internal error", 500)


def start(request: Request, answer: Answer) -> None:
    """Set status and headers of *answer*, but for its length."""
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode())
    # Bytes only: under -bb Twisted's headers take no texts beside them.
    for name, value in (
        (b"Content-Type", answer.content_type.encode()),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        *answer.headers,
    ):
        request.setHeader(name, value)
