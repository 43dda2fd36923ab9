"""Maps of system users; tests/integration/test_hba_like_postgres.py asks PostgreSQL the same."""

from __future__ import annotations

from auth_helpers import loaded, problems
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import IdentMaps, load_ident

MAPS = r"""
# map  system-user             role
m      joe                     replicator
m      joe                     "all"
m      ann                     all
m      "/^(.*)@example\.com$"  \1
m      /^(x)?y$                a\1b
m      /^(x)?y                 never
m      /^z(.*)                 /^(std|sb)\d$
other  /.                      \1x
other  bob                     "/^b"
other  /^one$                  two  and more
"""


class IdentTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Take the line out that could never let anybody in."""
        self.maps = loaded(load_ident, MAPS.replace("other  /.  ", "#"))

    def test_withoutAMap(self) -> None:
        """Without a map the names are equal, in case too."""
        self.assertTrue(self.maps.permits(None, "joe", "joe"))
        self.assertFalse(self.maps.permits(None, "joe", "Joe"))
        self.assertFalse(IdentMaps().permits("m", "joe", "joe"))

    def test_maps(self) -> None:
        """Each line of the map is asked, and only of this map."""
        for system_name, role, expected in [
            ("joe", "replicator", True),
            ("joe", "all", True),
            ("joe", "joe", False),
            ("Joe", "replicator", False),
            ("joe", "Replicator", False),
            ("ann", "whoever", True),
            ("bob@example.com", "bob", True),
            ("bob@example.com", "joe", False),
            ("bob@example.com.org", "bob", False),
            ("xy", "axb", True),
            ("xy", "never", True),
            ("z", "std1", True),
            ("z", "standby", False),
            ("bob", "bob", False),
        ]:
            self.assertIs(self.maps.permits("m", system_name, role), expected, (system_name, role))
        self.assertTrue(self.maps.permits("other", "bob", "barman"))
        self.assertTrue(self.maps.permits("other", "one", "two"))
        self.assertFalse(self.maps.permits("third", "joe", "replicator"))

    def test_whatMatchedIsAName(self) -> None:
        """What a group has matched is a name, whatever it looks like."""
        for role in ("all", "+x", "/x", r"\1"):
            self.assertTrue(self.maps.permits("m", f"{role}@example.com", role))
            self.assertFalse(self.maps.permits("m", f"{role}@example.com", "x"))

    def test_longNames(self) -> None:
        """A name is looked at whole: its beginning may be the name of somebody else."""
        user = "b" * 51
        self.assertTrue(self.maps.permits("m", f"{user}@example.com", user))
        self.assertFalse(self.maps.permits("m", f"{user}@example.com.evil.org", user))
        long = "CN=bob," + ",".join(["OU=department"] * 10)
        maps = loaded(load_ident, r'm "/^CN=(.*),(?:OU=department,?){10}$" \1')
        self.assertTrue(maps.permits("m", long, "bob"))
        self.assertFalse(maps.permits("m", f"{long}x", "bob"))
        # One that would take long to search in is nobody's.
        maps = loaded(load_ident, 'm "/^(.*)@" bob')
        self.assertTrue(maps.permits("m", "x" * 255 + "@", "bob"))
        self.assertFalse(maps.permits("m", "x" * 256 + "@", "bob"))

    def test_groupThatMatchesNothing(self) -> None:
        """A group that took no part ends the search, as in PostgreSQL."""
        self.assertFalse(self.maps.permits("m", "y", "never"))

    def test_problems(self) -> None:
        """All bad lines are told."""
        content = "\n".join([
            *("m", "m a", "m,n a b", "m a,c b", "m a b,c", "m /( b", "m b /)", "m a +b", r"m /a \1", "m a b"),
        ])  # fmt: skip
        self.assertEqual(
            problems(load_ident, content),
            [
                (1, "missing entry at end of line"),
                (2, "missing entry at end of line"),
                (3, "multiple values in ident field"),
                (4, "multiple values in ident field"),
                (5, "multiple values in ident field"),
                (6, 'invalid regular expression "(": parentheses () not balanced'),
                (7, 'invalid regular expression ")": parentheses () not balanced'),
                (8, '"+b" is not supported: no roles here have members'),
                (9, r'regular expression "a" has no subexpressions as requested by backreference in "\1"'),
            ],
        )
        self.assertEqual(problems(load_ident, "# nothing"), [])

    @given(st.text(st.sampled_from('m/a()\\1 ,@"+\n')))
    def test_anyText(self, content: str) -> None:
        """Whatever is in a file, it is maps or the one error."""
        if not problems(load_ident, content):
            loaded(load_ident, content).permits("m", "a", "a")
