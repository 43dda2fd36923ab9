"""How the files are cut into fields; tests/integration/test_hba_like_postgres.py asks PostgreSQL the same."""

from __future__ import annotations

from auth_helpers import files
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth.problems import Problem
from walsender.auth.tokens import Record, Token, read_records


def read(content: bytes | str, others: dict[str, str] | None = None) -> list[Record | Problem]:
    """Return the records of a file with *content*."""
    with files(content, others) as path:
        return list(read_records(str(path)))


def fields(content: bytes | str, others: dict[str, str] | None = None) -> list[list[list[str]]]:
    """Return the tokens of a good file, by record and field."""
    found = []
    for record in read(content, others):
        assert isinstance(record, Record), record
        found.append([[token.text for token in field] for field in record.fields])
    return found


def quoted(text: str) -> str:
    """Return *text* as a quoted token."""
    return '"' + text.replace('"', '""') + '"'


class TokensTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """Blanks part fields, commas part tokens, quotes protect both, and a comment ends the line."""
        for line, expected in {
            "a b\tc": [["a"], ["b"], ["c"]],
            "a,b c": [["a", "b"], ["c"]],
            "a, b ,c": [["a", "b"], ["c"]],
            ",,a,": [["a"]],
            'a" b,c#d"e': [["a b,c#de"]],
            '"a""b"': [['a"b']],
            '""': [[""]],
            '""""': [['"']],
            '"open # b': [["open # b"]],
            "a#b c": [["a"]],
            "a\r": [["a"]],
            "a\\b": [["a\\b"]],
            "a\x0bb": [["a\x0bb"]],
        }.items():
            self.assertEqual(fields(line), [expected], line)

    def test_nothing(self) -> None:
        """Empty lines and comments are no records."""
        self.assertEqual(fields("\n  \t\n# x\n ,\n"), [])

    def test_whatIsQuoted(self) -> None:
        """A token is quoted if it begins with a quote, wherever that ends."""
        (record,) = read('"a" "a"b b"a" a')
        assert isinstance(record, Record)
        tokens = [token for field in record.fields for token in field]
        self.assertEqual(tokens, [Token("a", quoted=True), Token("ab", quoted=True), Token("ba"), Token("a")])

    def test_continuedLines(self) -> None:
        """A backslash at the end joins lines, in quotes and comments too; numbers are of the first line."""
        found = read('a \\\nb\n"c \\\nd"\n# x \\\ny\nlast \\')
        self.assertEqual([record.line for record in found], [1, 3, 7])
        self.assertEqual(
            fields('a \\\nb\n"c \\\nd"\n# x \\\ny\nlast \\'), [[["a"], ["b"]], [["c d"]], [["last"]]]
        )
        self.assertEqual(fields("a\\\\\n\nb"), [[["a\\"]], [["b"]]])

    def test_tokensOfAnotherFile(self) -> None:
        """``@file`` stands for all tokens of a file; quoted it is a name."""
        others = {"users": 'a, b c\n"d e"\n', "more": "@users f"}
        self.assertEqual(fields("x @users,y z", others), [[["x"], ["a", "b", "c", "d e", "y"], ["z"]]])
        self.assertEqual(
            fields('@more @"users"', others), [[["a", "b", "c", "d e", "f"], ["a", "b", "c", "d e"]]]
        )
        self.assertEqual(fields('"@users" @'), [[["@users"], ["@"]]])
        self.assertEqual(fields("a @none b", {"none": "#"}), [[["a"], ["b"]]])

    def test_includedRecords(self) -> None:
        """An include directive stands for the records of others, each with its own file and line."""
        others = {
            "one": "\none 1",
            "d/b.conf": "b b b",
            "d/a.conf": "include ../one",
            "d/c": "c",
            "d/.e.conf": "e",
        }
        found = read("include one\ninclude_if_exists two\ninclude_dir d\ninclude one more", others)
        places = []
        for record in found:
            assert isinstance(record, Record)
            places.append((record.file.rpartition("/")[2], record.line, record.fields[0][0].text))
        self.assertEqual(
            places, [("one", 2, "one"), ("one", 2, "one"), ("b.conf", 1, "b"), ("file.conf", 4, "include")]
        )

    def test_everyProblemIsTold(self) -> None:
        """What cannot be read is told with its line, and the rest is read."""
        others = {
            "self": "once\ninclude self",
            "deep10": "x",
            **{f"deep{n}": f"include deep{n + 1}" for n in range(10)},
        }
        content = (
            'a\n@gone\ninclude gone\ninclude_dir gone\ninclude_dir ""\ninclude self\n'
            "include deep0\ninclude deep1\nb"
        )
        with files(content, others) as path:
            parent = f"{path.parent}/"
            found = [
                (one.line, one.message.replace(parent, ""))
                if isinstance(one, Problem)
                else one.fields[0][0].text
                for one in read_records(str(path))
            ]
            self.assertEqual(
                found,
                [
                    "a",
                    (2, 'could not open file "gone": No such file or directory'),
                    (3, 'could not open file "gone": No such file or directory'),
                    (4, 'could not open configuration directory "gone": No such file or directory'),
                    (5, "empty configuration directory name"),
                    "once",
                    (2, 'could not open file "self": maximum nesting depth exceeded'),
                    (1, 'could not open file "deep10": maximum nesting depth exceeded'),
                    "x",
                    "b",
                ],
            )
        (problem,) = read_records("/nowhere/pg_hba.conf")
        assert isinstance(problem, Problem)
        self.assertEqual(
            str(problem), 'could not open file "/nowhere/pg_hba.conf": No such file or directory'
        )

    def test_nul(self) -> None:
        """A line with a NUL is refused, where PostgreSQL forgets what follows."""
        (problem,) = read(b"a \0b")
        self.assertIsInstance(problem, Problem)

    @given(st.binary(max_size=200))
    def test_anyBytes(self, content: bytes) -> None:
        """Whatever is in a file, it is records and problems."""
        for record in read(content):
            self.assertGreaterEqual(record.line, 1)

    @given(
        st.lists(
            st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\\")), min_size=1),
            min_size=1,
        )
    )
    def test_roundTrip(self, expected: list[list[str]]) -> None:
        """Quoted tokens come back as they were, whatever is in them."""
        line = " ".join(",".join(map(quoted, field)) for field in expected)
        assume(len(expected) != 2)  # an include directive, perhaps
        self.assertEqual(fields(line), [expected])
