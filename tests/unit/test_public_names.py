"""What other programs may build on: the list of it, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import walsender
import walsender.testing
from walsender.testing.processes import source_environment

PUBLIC = {
    "LSN",
    "PASSWORD_MESSAGES",
    "Authenticated",
    "AuthenticationRequest",
    "ConfigurationError",
    "ConnectionRequest",
    "Geometry",
    "IAuthenticationClient",
    "IAuthorizer",
    "IWalSource",
    "IWalSubscriber",
    "InvalidAuthorization",
    "LocalAuthorizer",
    "MessageRules",
    "OpenSegment",
    "SegmentUnavailable",
    "Settings",
    "StartPositionRefused",
    "TimelineEnd",
    "TlsInfo",
    "WalFileMissing",
    "WalSenderFactory",
    "WalSenderService",
    "WalsenderError",
}
PUBLIC_FOR_TESTS = {
    "ClockReactor",
    "MemoryConnection",
    "MemoryServer",
    "ScriptedSource",
    "ThrottledTransport",
    "WalMaker",
    "wal_bytes",
}


class PublicNamesTests(SynchronousTestCase):
    def test_names(self) -> None:
        """They are these, and each is there and documented: one that goes breaks other people's programs."""
        for package, names in ((walsender, PUBLIC), (walsender.testing, PUBLIC_FOR_TESTS)):
            self.assertEqual(set(package.__all__), names)
            for name in names:
                self.assertTrue(getattr(package, name).__doc__, name)

    def test_otherNames(self) -> None:
        """Any other name is refused as by every module."""
        with self.assertRaisesRegex(AttributeError, "module 'walsender' has no attribute 'Nothing'"):
            walsender.Nothing  # type: ignore[attr-defined]  # noqa: B018
        self.assertFalse(hasattr(walsender.testing, "Nothing"))

    def test_nothingIsImportedUnasked(self) -> None:
        """The packages themselves import neither Twisted nor other modules of ours."""
        program = (
            "import sys, walsender, walsender.testing;"
            "print(*sorted(n for n in sys.modules if n.startswith(('twisted', 'zope', 'walsender'))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=source_environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.assertEqual(done.stdout.split(), ["walsender", "walsender.lazily", "walsender.testing"])
