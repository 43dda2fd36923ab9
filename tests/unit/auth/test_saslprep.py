"""SASLprep of passwords, as PostgreSQL does it."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import saslprep as module
from walsender.auth.saslprep import prepare_password


class PreparedTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """The examples of RFC 4013, section 3, and what PostgreSQL does with what may not be prepared."""
        for password, prepared in (
            ("I\u00adX", "IX"),  # SOFT HYPHEN is mapped to nothing
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
            ("\x07", "\x07"),  # prohibited, but ASCII is not looked at
            ("\u0627\u0031", "\u0627\u0031"),  # right to left, and does not end so
            ("a\u200bb", "a b"),  # ZERO WIDTH SPACE is in two tables: a blank first
            ("a\u00a0b", "a b"),
            ("\u00ad", "\u00ad"),  # nothing is left
            ("é\u0080", "é\u0080"),  # a control character
            ("\u0221", "\u0221"),  # not assigned in Unicode 3.2
            ("\u0627a\u0628", "\u0627a\u0628"),  # both directions
        ):
            self.assertEqual(prepare_password(password.encode()), prepared.encode(), ascii(password))

    def test_notUtf8(self) -> None:
        """What is no UTF-8 is used as it is."""
        self.assertEqual(prepare_password(b"a\xff"), b"a\xff")

    def test_tooLong(self) -> None:
        """What would take long to prepare is used as it is, so that a stranger cannot stop everything."""

        def normalize(form: str, text: str) -> str:
            self.assertLessEqual(len(text.encode()), 1024)
            return unicodedata.normalize(form, text)

        self.patch(module, "unicodedata", SimpleNamespace(normalize=normalize))
        self.assertEqual(prepare_password("\u00aa".encode() * 512), b"a" * 512)
        for password in ("\u00aa" * 513, "\u0345" * 15000 + "\u0334" * 15000):
            self.assertEqual(prepare_password(password.encode()), password.encode())

    @given(st.binary(max_size=20) | st.text(max_size=20).map(str.encode))
    def test_anyPassword(self, password: bytes) -> None:
        """Every password has a form, and that form is its own."""
        prepared = prepare_password(password)
        self.assertEqual(prepare_password(prepared), prepared)
