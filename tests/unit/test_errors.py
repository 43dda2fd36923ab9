"""Typed errors: SQLSTATE and severity are part of the type."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from walsender import errors
from walsender.errors import (
    DiskFull,
    ProtocolViolation,
    WalFileDenied,
    WalFileError,
    WalFileMissing,
    WalsenderError,
    file_error,
)


class WalsenderErrorTests(SynchronousTestCase):
    """What a class of error carries."""

    def test_classCarriesSqlstateAndSeverity(self) -> None:
        """A class states its code and severity, and a class derived from it has them too."""
        self.assertEqual(("08P01", "FATAL"), (ProtocolViolation.sqlstate, ProtocolViolation.severity))
        self.assertEqual(("58P01", "ERROR"), (WalFileMissing.sqlstate, WalFileMissing.severity))
        self.assertEqual("XX000", WalsenderError("x").sqlstate)

    def test_impossibleCodesAreRefusedWhenTheClassIsMade(self) -> None:
        """A code that is no SQLSTATE, and a severity that is none of an error, are found at import."""
        for code in ("", "8P01", "08p01", "08P011"):
            with self.assertRaises(TypeError):
                type("Wrong", (WalsenderError,), {}, sqlstate=code)
        with self.assertRaises(TypeError):
            type("Wrong", (WalsenderError,), {}, severity="WARNING")

    def test_everyErrorIsAWalsenderErrorWithADocstring(self) -> None:
        """Everything that this module calls an error can be caught as one, and says what it means."""
        classes = [
            thing
            for thing in vars(errors).values()
            if isinstance(thing, type) and thing is not errors.ClassVar
        ]
        self.assertGreater(len(classes), 20)
        for each in classes:
            self.assertTrue(issubclass(each, WalsenderError), each)
            self.assertTrue(each.__doc__, each)

    def test_carriesDetailAndHint(self) -> None:
        """Message, detail and hint are kept apart."""
        error = WalsenderError("one", detail="two", hint="three")
        self.assertEqual(
            ("one", "two", "three", "one"), (error.message, error.detail, error.hint, str(error))
        )


class FileErrorTests(SynchronousTestCase):
    """Errors of the operating system."""

    def test_errnoDecidesTheClass(self) -> None:
        """A missing file, a forbidden one and everything else are three errors."""
        cases = {
            errno.ENOENT: WalFileMissing,
            errno.EACCES: WalFileDenied,
            errno.EPERM: WalFileDenied,
            errno.ENOSPC: DiskFull,
            errno.EIO: WalFileError,
        }
        for number, expected in cases.items():
            error = file_error('could not open file "pg_wal/x"', OSError(number, "ours"))
            self.assertIs(expected, type(error))

    def test_textIsPostgresAndTheSystems(self) -> None:
        """The text is what could not be done and the system's reason, without a path of ours."""
        error = file_error(
            'could not open file "pg_wal/x"', OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/secret/x")
        )
        self.assertEqual('could not open file "pg_wal/x": No such file or directory', error.message)
        self.assertEqual("reading: odd", file_error("reading", OSError("odd")).message)
