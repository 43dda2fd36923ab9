"""``python -m walsender probe``: who is asked, and what is printed."""

from __future__ import annotations

import contextlib
import io
import socket
import urllib.request
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from walsender import probe

if TYPE_CHECKING:
    from typing import Self


class Opener:
    """Answers whatever is asked for with the same."""

    def __init__(self, content: bytes = b"# HELP one\r\ntwo 2\n") -> None:
        self.asked: list[str] = []
        self._content = content

    def open(self, url: str, timeout: float) -> Self:
        """Note who is asked."""
        self.asked.append(url)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> bytes:
        """Return the answer."""
        return self._content


class ProbeTests(SynchronousTestCase):
    def run_probe(self, url: str) -> tuple[int, str, str]:
        """Return status, output and what was wrong."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = probe.run(url)
        return status, output.getvalue(), errors.getvalue()

    def test_nobody(self) -> None:
        """Where nobody listens, that is said in words, with what is forgotten most easily."""
        with socket.socket() as bound:  # which does not listen
            bound.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{bound.getsockname()[1]}"
            told = "Connection refused; is the server started with --http?"
            expected = f"walsender probe: http://{where}/health: {told}\n"
            self.assertEqual((1, "", expected), self.run_probe(where))

    def test_url(self) -> None:
        """An address is enough; a page that is named is the one that is asked for."""
        opener = Opener()
        self.patch(urllib.request, "build_opener", lambda *_: opener)
        for url in ("10.0.0.1:9187", "http://10.0.0.1:9187/", "10.0.0.1:9187/readiness", "https://a/metrics"):
            self.run_probe(url)
        self.assertEqual(
            [
                "http://10.0.0.1:9187/health",
                "http://10.0.0.1:9187/health",
                "http://10.0.0.1:9187/readiness",
                "https://a/metrics",
            ],
            opener.asked,
        )

    def test_oneLine(self) -> None:
        """A probe's answer is printed in one line; of a page that is no probe one line is enough."""
        answer = b'{\n  "ok": true,\n  "lag_bytes": 0\n}\n'
        self.patch(urllib.request, "build_opener", lambda *_: Opener(answer))
        self.assertEqual((0, '{"ok": true, "lag_bytes": 0}\n', ""), self.run_probe("a"))
        self.patch(urllib.request, "build_opener", lambda *_: Opener())
        self.assertEqual((0, "# HELP one\n", ""), self.run_probe("http://a/metrics"))

    def test_noUrl(self) -> None:
        """What is no address is refused in one line."""
        for url in ("http://[", "", "ftp:/x"):
            status, output, errors = self.run_probe(url)
            self.assertEqual((1, "", 1), (status, output, errors.count("\n")), errors)
