"""Waiting for the upstream's answers, and not for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from walsender.upstream.interfaces import UpstreamError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")


def answer_within(clock: IReactorTime, seconds: float, answer: Deferred[T]) -> Deferred[T]:
    """
    Return *answer*; it fails with `UpstreamError` if it takes longer, since a network may be cut.

    :param seconds: 0: for as long as it takes.
    """
    if seconds:
        answer.addTimeout(seconds, clock, onTimeoutCancel=_silent)
    return answer


def _silent(_result: object, _seconds: float) -> NoReturn:
    raise UpstreamError("terminating walreceiver due to timeout")
