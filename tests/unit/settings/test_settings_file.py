"""
Configuration files.

What is accepted, and the messages, were compared with PostgreSQL 18: ``postgres
-C cluster_name`` and ``-C wal_sender_timeout`` over a postgresql.conf of each case.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.settings.file import read_file

ACCEPTED: dict[bytes, list[tuple[str, str]]] = {
    b"": [],
    b"\n\n  # nothing\n\t\n": [],
    b"a = 10s\n": [("a", "10s")],
    b"a 10s": [("a", "10s")],
    b"a=10s#c\r\n": [("a", "10s")],
    b"A_b = '10s'\r\n": [("A_b", "10s")],
    b"a = '1\\60s'": [("a", "10s")],
    b"a = '\\501'": [("a", "A")],
    b"a = -1e": [("a", "-1e")],
    b"a = a.b.c": [("a", "a.b.c")],
    b"a = a-b:c/d": [("a", "a-b:c/d")],
    b"a = 'it''s \\'x\\' \\n \\t \\b\\f\\r \\101 \\q \\\\'": [("a", "it's 'x' \n \t \b\f\r A q \\")],
    b"a = \xc3\xa4\n": [("a", "\xe4")],
    b"a = '\\303\\244'": [("a", "\xe4")],
    b"a = '\xff'": [("a", "\udcff")],
    b"a = 8.5": [("a", "8.5")],
    b"a = 0x10g": [("a", "0x10g")],
    b"a = 1.e5": [("a", "1.e5")],
    b"a = ''": [("a", "")],
    b"a 'x'#y": [("a", "x")],
    b"a = _x": [("a", "_x")],
    b"a = 16MB\nb.c = 'x y'\n": [("a", "16MB"), ("b.c", "x y")],
    b"a = 1\na = 2": [("a", "1"), ("a", "2")],
}

# Line, and the token that PostgreSQL names; none means the end of the line.
REFUSED: dict[bytes, tuple[int, str | None]] = {
    b"a = 1.5s\n": (1, "s"),
    b"a = 5 parsecs\n": (1, "parsecs"),
    b"\n\na =\n": (3, None),
    b"a = tcp:1=2\n": (1, "="),
    b"= 5": (1, "="),
    b"a = '5": (1, "'"),
    b"a == 5": (1, "="),
    b"a = 5 b = on": (1, "b"),
    b"a": (1, None),
    b"a#x": (1, None),
    b"5 = 6": (1, "5"),
    b"-5": (1, "-5"),
    b"a = /x": (1, "/"),
    b"a = a.b": (1, "a.b"),
    b"a = -a": (1, "-"),
    b"a 'x'y": (1, "y"),
    b"a = 'x\ny'": (1, "'"),
    b"a = 'x\\\ny'": (1, "'"),
    b"a = 1_000": (1, "_000"),
    b"\x00": (1, "\\x00"),
    # Here PostgreSQL takes what is before the zero.
    b"a = 'a\x00b'": (1, "\\x00"),
    b"a = 'a\\0b'": (1, "\\x00"),
}

QUOTE_HINT = (
    '. A value that has other characters than letters, digits, "_", "-", ".", ":" and "/"'
    " must be in single quotes."
)
UNCLOSED_HINT = ". The quote is not closed on that line."


class FileTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for configuration files."""
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.write("main.conf", b"")

    def write(self, name: str, content: bytes) -> str:
        """Write a configuration file and return its path."""
        path = Path(self.directory, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def read(self, content: bytes) -> list[tuple[str, str]]:
        """Return the names and values in a file of *content*."""
        self.write("main.conf", content)
        return [(one.name, one.text) for one in read_file(self.path, "there")]

    def refusal(self, content: bytes) -> str:
        """Return the message with which a file of *content* is refused, the directory shortened to D."""
        error = self.assertRaises(ConfigurationError, self.read, content)
        return str(error).replace(self.directory, "D")


class SyntaxTests(FileTestCase):
    def test_acceptedAsByPostgreSQL(self) -> None:
        """Names and values are those that PostgreSQL finds."""
        for content, expected in ACCEPTED.items():
            self.assertEqual((content, self.read(content)), (content, expected))

    def test_refusedAsByPostgreSQL(self) -> None:
        """What PostgreSQL refuses is refused with its message, and told what to do about it."""
        quote = "'"
        for content, (line, token) in REFUSED.items():
            place = f'syntax error in file "D/main.conf" line {line}, near '
            hint = UNCLOSED_HINT if token == quote else QUOTE_HINT
            expected = f"{place}end of line" if token is None else f'{place}token "{token}"{hint}'
            self.assertEqual((content, self.refusal(content)), (content, expected))

    def test_assignmentKnowsItsPlace(self) -> None:
        """Each assignment carries file and line, and the directory that relative paths start from."""
        self.write("main.conf", b"\na = 1\n")
        (one,) = read_file(self.path, "there")
        self.assertEqual(one.source, f'file "{self.path}" line 2')
        self.assertEqual(one.directory, self.directory)

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
    def test_quotingRoundTrips(self, value: str) -> None:
        """Any value, in quotes and with its quotes doubled and its line breaks escaped, comes back."""
        quoted = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
        self.assertEqual(self.read(f"a = '{quoted}'".encode()), [("a", value)])

    @given(st.binary().filter(lambda value: b"\0" not in value))
    def test_octalEscapesRoundTrip(self, value: bytes) -> None:
        """Any bytes, each as its octal escape, come back as the system's file names have them."""
        escaped = "".join(f"\\{byte:03o}" for byte in value)
        self.assertEqual(
            self.read(f"a '{escaped}'".encode()), [("a", value.decode("utf-8", "surrogateescape"))]
        )

    @given(
        st.one_of(
            st.binary(),
            st.lists(
                st.sampled_from(
                    [
                        b"a",
                        b"=",
                        b" ",
                        b"\n",
                        b"'",
                        b"\\",
                        b"#",
                        b"1",
                        b".",
                        b"-",
                        b"include",
                        b"_dir",
                        b"\r",
                        b"\xc3",
                    ]
                )
            ).map(b"".join),
        )
    )
    @example(b"include a\n")
    @example(b"include_dir '\\1'\n")
    def test_anyContentIsReadOrRefused(self, content: bytes) -> None:
        """Whatever a file holds gives assignments or a ConfigurationError of one line."""
        try:
            self.read(content)
        except ConfigurationError as error:
            self.assertTrue(str(error).isprintable())


class IncludeTests(FileTestCase):
    def test_includedWhereTheLineStands(self) -> None:
        """An included file counts at the place of its line, and knows its own name."""
        included = self.write("sub/one.conf", b"a = 2\n")
        self.write("main.conf", b"a = 1\ninclude 'sub/one.conf'\na = 3\n")
        found = read_file(self.path, "there")
        self.assertEqual([one.text for one in found], ["1", "2", "3"])
        self.assertEqual(found[1].source, f'file "{included}" line 1')
        self.assertEqual(found[1].directory, str(Path(included).parent))

    def test_relativeToTheIncludingFile(self) -> None:
        """A relative name starts in the directory of the file that has the line; ``include`` in any case."""
        self.write("sub/one.conf", b"Include 'two.conf'\n")
        self.write("sub/two.conf", b"a = 2\n")
        self.assertEqual(self.read(b"INCLUDE = 'sub/one.conf'"), [("a", "2")])

    def test_missingFile(self) -> None:
        """A file that is not there is refused with its name and the line that asked for it."""
        self.assertEqual(
            self.refusal(b"\ninclude 'nope.conf'"),
            'could not open configuration file "D/nope.conf": No such file or directory'
            ' in file "D/main.conf" line 2',
        )

    def test_includeIfExists(self) -> None:
        """``include_if_exists`` reads a file that is there and passes over one that is not."""
        self.write("one.conf", b"a = 2\n")
        self.assertEqual(
            self.read(b"include_if_exists 'nope.conf'\ninclude_if_exists 'one.conf'\n"), [("a", "2")]
        )

    def test_includeIfExistsForgivesNothingElse(self) -> None:
        """``include_if_exists`` refuses what exists and cannot be read."""
        Path(self.directory, "sub").mkdir()
        self.assertIn(
            'could not open configuration file "D/sub": Is a directory',
            self.refusal(b"include_if_exists 'sub'"),
        )

    def test_includeDirectory(self) -> None:
        """``include_dir`` reads the visible *.conf files in the order of their bytes, nothing else."""
        for name in ["b.conf", "B.conf", "a.conf", ".c.conf", "c.txt", "d.conf~"]:
            self.write(f"conf.d/{name}", f"a = '{name}'".encode())
        Path(self.directory, "conf.d", "dir.conf").mkdir()
        self.assertEqual(
            self.read(b"include_dir 'conf.d'"), [("a", "B.conf"), ("a", "a.conf"), ("a", "b.conf")]
        )

    def test_missingDirectory(self) -> None:
        """A directory that is not there is refused with its name and the line that asked for it."""
        self.assertEqual(
            self.refusal(b"include_dir 'nope'"),
            'could not open configuration directory "D/nope": No such file or directory'
            ' in file "D/main.conf" line 1',
        )

    def test_emptyNames(self) -> None:
        """An include without a name is refused as PostgreSQL refuses it."""
        place = 'in file "D/main.conf" line 1'
        self.assertEqual(self.refusal(b"include ''"), f'empty configuration file name: "" {place}')
        self.assertEqual(self.refusal(b"include_if_exists ''"), f'empty configuration file name: "" {place}')
        self.assertEqual(self.refusal(b"include_dir ''"), f'empty configuration directory name: "" {place}')

    def test_recursion(self) -> None:
        """A file that includes itself, or one that includes it, is refused."""
        self.assertEqual(
            self.refusal(b"include 'main.conf'"),
            'configuration file recursion in "D/main.conf" in file "D/main.conf" line 1',
        )
        self.write("one.conf", b"include 'one.conf'")
        self.assertEqual(
            self.refusal(b"include 'one.conf'"),
            'configuration file recursion in "D/one.conf" in file "D/one.conf" line 1',
        )
        self.write("one.conf", b"include 'main.conf'")
        self.assertEqual(
            self.refusal(b"include 'one.conf'"),
            'configuration file recursion in "D/main.conf" in file "D/one.conf" line 1',
        )

    def test_depth(self) -> None:
        """Ten files deep is allowed, eleven is not."""
        for depth in range(1, 11):
            self.write(f"{depth}.conf", f"include '{depth + 1}.conf'".encode())
        self.write("10.conf", b"a = deep")
        self.assertEqual(self.read(b"include '1.conf'"), [("a", "deep")])
        self.write("10.conf", b"include '11.conf'")
        self.write("11.conf", b"a = deep")
        self.assertEqual(
            self.refusal(b"include '1.conf'"),
            'could not open configuration file "D/11.conf": maximum nesting depth exceeded'
            ' in file "D/10.conf" line 1',
        )

    def test_firstFileMissing(self) -> None:
        """When the first file cannot be read, the message says who named it."""
        error = self.assertRaises(ConfigurationError, read_file, "/nonexistent/x.conf", "there")
        self.assertEqual(
            str(error),
            'could not open configuration file "/nonexistent/x.conf": No such file or directory (from there)',
        )
