"""What a server compares passwords with: one verifier for each user, and one for each who is none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from walsender.auth.passwords import PlainPassword, ScramVerifier
from walsender.auth.scram import DEFAULT_ITERATIONS, MockSecrets, derive_verifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from walsender.auth.userlist import Userlist


class StoredPasswords:
    """
    The passwords of a `Userlist`, ready to be compared with.

    Making one derives the verifier of each plain password, milliseconds for each: after the
    start not in the reactor's thread.  It is done then, and not when somebody comes, so that all
    users are answered after the same time, those who do not exist too.

    How many iterations most of the verifiers in the file have, so many has what is derived, and what
    is made up: the number is shown to anybody who asks.

    :param mock: makes up what nobody has.
    :param derived: verifiers that need not be derived again, by user, plain password and iterations.
    """

    def __init__(
        self,
        userlist: Userlist,
        mock: MockSecrets | None = None,
        derived: Mapping[tuple[str, str, int], ScramVerifier] | None = None,
    ) -> None:
        self._mock = mock or MockSecrets()
        self._verifiers: dict[str, ScramVerifier] = {}
        self._derived: dict[tuple[str, str, int], ScramVerifier] = {}
        self._iterations = _usual_iterations(userlist)
        for user, secret in userlist.items():
            if isinstance(secret, PlainPassword):
                key = user, secret.text, self._iterations
                verifier = (derived or {}).get(key) or derive_verifier(
                    secret.text.encode("utf-8", "surrogateescape"), self._mock.salt(user), self._iterations
                )
                self._derived[key] = verifier
            else:
                verifier = secret
            self._verifiers[user] = verifier

    def replaced_by(self, userlist: Userlist) -> StoredPasswords:
        """Return those of *userlist*; unknown users are answered as before."""
        return StoredPasswords(userlist, self._mock, self._derived)

    def find(self, user: str) -> tuple[ScramVerifier, bool]:
        """Return a verifier, and whether it is the user's; if not, it looks like one and fits nothing."""
        mock = self._mock.verifier(user, self._iterations)
        verifier = self._verifiers.get(user)
        return (mock, False) if verifier is None else (verifier, True)


def _usual_iterations(userlist: Userlist) -> int:
    """Return the number that most verifiers have; of several the largest."""
    counts = Counter(secret.iterations for _, secret in userlist.items() if isinstance(secret, ScramVerifier))
    return max(counts, key=lambda number: (counts[number], number), default=DEFAULT_ITERATIONS)
