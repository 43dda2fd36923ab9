"""What passwords are compared with, for those who exist and those who do not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import PlainPassword, ScramVerifier, StoredPasswords, Userlist
from walsender.auth import stored_passwords as module
from walsender.auth.scram import derive_verifier, is_password

VERIFIER = derive_verifier(b"pencil", b"salt", 7)


class StoredPasswordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Count what is derived."""
        self.derived: list[bytes] = []

        def derive(password: bytes, salt: bytes, iterations: int) -> ScramVerifier:
            self.derived.append(password)
            return derive_verifier(password, salt, iterations)

        self.patch(module, "derive_verifier", derive)

    def test_verifier(self) -> None:
        """A verifier is found as it is stored."""
        stored = StoredPasswords(Userlist({"a": VERIFIER}))
        self.assertEqual(stored.find("a"), (VERIFIER, True))
        self.assertEqual(self.derived, [])

    def test_plainPassword(self) -> None:
        """A plain password has its verifier before anybody asks, with the salt that the name had without."""
        stored = StoredPasswords(Userlist({"a": PlainPassword("pass wörd")}))
        self.assertEqual(self.derived, ["pass wörd".encode()])
        verifier, real = stored.find("a")
        self.assertTrue(real)
        self.assertTrue(is_password(verifier, "pass wörd".encode()))
        gone, _ = stored.replaced_by(Userlist({})).find("a")
        self.assertEqual(gone.salt, verifier.salt)
        self.assertEqual(gone.iterations, verifier.iterations)

    def test_nobody(self) -> None:
        """Who is not there is shown the same each time, also after a reload."""
        stored = StoredPasswords(Userlist({}))
        verifier, real = stored.find("a")
        self.assertFalse(real)
        self.assertEqual(stored.replaced_by(Userlist({"b": PlainPassword("x")})).find("a"), (verifier, False))
        self.assertNotEqual(stored.find("b")[0].salt, verifier.salt)

    def test_iterations(self) -> None:
        """Who is not there, and who has a plain password, has as many iterations as most verifiers have."""
        other = derive_verifier(b"pencil", b"salt", 8)
        everybody = {"a": VERIFIER, "b": VERIFIER, "c": other, "d": PlainPassword("x")}
        stored = StoredPasswords(Userlist(everybody))
        found = {user: stored.find(user)[0].iterations for user in "abcdz"}
        self.assertEqual(found, {"a": 7, "b": 7, "c": 8, "d": 7, "z": 7})
        stored = stored.replaced_by(Userlist({**everybody, "b": other}))
        self.assertEqual([stored.find(user)[0].iterations for user in "dz"], [8, 8])
        self.assertTrue(is_password(stored.find("d")[0], b"x"))
        stored = stored.replaced_by(Userlist({"d": PlainPassword("x")}))
        self.assertEqual([stored.find(user)[0].iterations for user in "dz"], [4096, 4096])

    def test_reload(self) -> None:
        """What has not changed is not derived again; what has is."""
        stored = StoredPasswords(Userlist({"a": PlainPassword("x"), "b": PlainPassword("y")}))
        stored = stored.replaced_by(Userlist({"a": PlainPassword("x"), "b": PlainPassword("z")}))
        self.assertEqual(self.derived, [b"x", b"y", b"z"])
        self.assertTrue(is_password(stored.find("b")[0], b"z"))
