"""Stored passwords."""

from __future__ import annotations

import base64

from auth_helpers import files, loaded, problems
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import AccessFileError, PlainPassword, ScramVerifier, load_userlist
from walsender.auth.passwords import VERIFIER_PREFIX

KEY = base64.b64encode(bytes(range(32))).decode()
VERIFIER = f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}"


class UserlistTests(SynchronousTestCase):
    def test_secrets(self) -> None:
        """Passwords and verifiers, in quotes; what follows is ignored, as are comments."""
        content = (
            '; "x" "y"\n\n"plain" "pass word"\n  "q""q"\t"a""b" rest "of" it\n'
            f'"scram" "{VERIFIER}"\n"empty" ""\n'
        )
        users = loaded(load_userlist, content)
        self.assertEqual(users.secret("plain"), PlainPassword("pass word"))
        self.assertEqual(users.secret('q"q'), PlainPassword('a"b'))
        self.assertEqual(
            users.secret("scram"), ScramVerifier(4096, b"salt", bytes(range(32)), bytes(range(32)))
        )
        for user in ("empty", "x", "", "PLAIN"):
            self.assertIsNone(users.secret(user))
        self.assertEqual(users.warnings, ())

    def test_lastOneCounts(self) -> None:
        """Of two lines about one user the last counts, and that is told; an empty password takes it away."""
        users = loaded(load_userlist, '"a" "1"\n"b" "2"\n"a" "3"\n"b" ""\n')
        self.assertEqual(users.secret("a"), PlainPassword("3"))
        self.assertIsNone(users.secret("b"))
        self.assertEqual([one.line for one in users.warnings], [3, 4])

    def test_problems(self) -> None:
        """Every bad line is told, with what to do and without what is secret."""
        secret = "hidden"
        lines = {
            f'a "{secret}"': "invalid line",
            f'"a" {secret}': "invalid line",
            f'"a""{secret}"': "invalid line",
            f'"a" "{secret}': "invalid line",
            f'"a" "{secret}""': "invalid line",
            f'# "a" "{secret}"': "invalid line",
            f'"" "{secret}"': "user name is empty or too long",
            f'"{"a" * 64}" "{secret}"': "user name is empty or too long",
            f'"a" "md5{"0123456789abcdef" * 2}"': (
                'the password of user "a" is an MD5 hash, which is not supported'
            ),
            f'"a" "SCRAM-SHA-256${secret}"': 'the SCRAM verifier of user "a" is not valid',
            f'"a" "{VERIFIER[:-2]}"': 'the SCRAM verifier of user "a" is not valid',
            f'"a" "{VERIFIER.replace(KEY, "AAAA")}"': 'the SCRAM verifier of user "a" is not valid',
            f'"a" "{VERIFIER.replace(KEY, "AAAA", 1)}"': 'the SCRAM verifier of user "a" is not valid',
            f'"a" "{VERIFIER.replace("4096", "0")}"': 'the SCRAM verifier of user "a" is not valid',
            f'"a" "{VERIFIER.replace("4096", "99999999999")}"': 'the SCRAM verifier of user "a" is not valid',
        }
        content = "\n".join(lines)
        self.assertEqual(problems(load_userlist, content), list(enumerate(lines.values(), 1)))
        with files(content) as path:
            error = self.assertRaises(AccessFileError, load_userlist, str(path))
        told = "\n".join(map(str, error.problems))
        for text in (secret, KEY[:10], "0123456789abcdef"):
            self.assertNotIn(text, told)
        self.assertIn("pg_authid", told)

    def test_md5Password(self) -> None:
        """What only looks like a hash is a password."""
        users = loaded(load_userlist, f'"a" "md5{"x" * 32}"\n"b" "md5"\n')
        self.assertEqual(users.secret("a"), PlainPassword("md5" + "x" * 32))

    def test_worldAccess(self) -> None:
        """A file that everybody may read is used, with a warning; the group may read it."""
        for mode, expected in {
            0o600: [],
            0o640: [],
            0o644: ["has world access"],
            0o604: ["has world access"],
        }.items():
            with files('"a" "b"', mode=mode) as path:
                warnings = load_userlist(str(path)).warnings
            self.assertEqual([one.message.partition('" ')[2] for one in warnings], expected)

    def test_nothingSecretIsShown(self) -> None:
        """No text form of a list, a password or a verifier has a secret."""
        users = loaded(load_userlist, f'"a" "hidden"\n"b" "{VERIFIER}"\n')
        shown = f"{users!r} {users} {users.secret('a')!r} {users.secret('b')}"
        for text in ("hidden", "4096", "salt", "x01"):
            self.assertNotIn(text, shown)

    def test_noFile(self) -> None:
        """A file that cannot be read is one problem."""
        error = self.assertRaises(AccessFileError, load_userlist, "/nowhere/userlist.txt")
        self.assertEqual(
            [str(one) for one in error.problems],
            ['could not open auth_file "/nowhere/userlist.txt": No such file or directory'],
        )

    @given(st.binary(max_size=200) | st.text(st.sampled_from('"a; \nmd5')).map(str.encode))
    def test_anyBytes(self, content: bytes) -> None:
        """Whatever is in a file, it is users or the one error."""
        if not problems(load_userlist, content):
            loaded(load_userlist, content).secret("a")

    @given(
        st.dictionaries(
            names := st.text(
                st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1, max_size=15
            ),
            # What begins so is a verifier or an error, and may be found among the program's constants.
            names.filter(lambda text: not text.startswith(VERIFIER_PREFIX)),
        )
    )
    def test_roundTrip(self, expected: dict[str, str]) -> None:
        """Whatever name and password are, they come back as they were written."""
        quoted = [[text.replace('"', '""') for text in pair] for pair in expected.items()]
        users = loaded(load_userlist, "".join(f'"{user}" "{password}"\n' for user, password in quoted))
        for user, password in expected.items():
            self.assertEqual(users.secret(user), PlainPassword(password))
