"""Endpoints that answer, and endpoints that do not."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from walsender.ports import Ports


class _Endpoint:
    """Answers as a test says."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self.answer = answer

    def listen(self, _: object) -> Deferred[Any]:
        """See `IStreamServerEndpoint`."""
        return self.answer


class PortsTests(SynchronousTestCase):
    """`Ports`."""

    def setUp(self) -> None:
        """Have the ports of one setting."""
        settings: Any = mock.Mock(sources={"listen": "a test"})
        self.ports = Ports(settings, "listen")

    def open(self, *answers: Deferred[Any]) -> list[str]:
        """Listen on endpoints that answer so; return what is refused."""
        endpoints: Any = [(f"e{number}", _Endpoint(each), None) for number, each in enumerate(answers)]
        return [error.message for error in self.ports.open(endpoints)]

    def test_opened(self) -> None:
        """What has been opened is closed; what has been refused is told."""
        port = mock.Mock()
        self.assertEqual(
            ['could not listen on "e1": taken (parameter "listen" from a test)'],
            self.open(succeed(port), fail(OSError(98, "taken"))),
        )
        self.successResultOf(self.ports.close())
        port.stopListening.assert_called_once_with()

    def test_late(self) -> None:
        """An endpoint of somebody's that lets us wait is refused, and its port closed when it comes."""
        comes, fails = Deferred[Any](), Deferred[Any]()
        text = 'could not listen on "e{}": it does not answer at once (parameter "listen" from a test)'
        self.assertEqual([text.format(0), text.format(1)], self.open(comes, fails))
        port = mock.Mock()
        comes.callback(port)
        port.stopListening.assert_called_once_with()
        fails.errback(OSError(98, "taken"))
        self.successResultOf(fails)
