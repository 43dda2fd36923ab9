"""Regular expressions; tests/integration/test_hba_like_postgres.py compares thousands with PostgreSQL."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth.regex import InvalidRegex, compile_regex


class RegexTests(SynchronousTestCase):
    def test_meaning(self) -> None:
        """What means something else to Python keeps PostgreSQL's meaning."""
        for expression, matching, other in [
            ("^a$", ["a"], ["a\n", "ba"]),
            ("a.b", ["a\nb"], ["ab"]),
            (r"\bx", ["\bx"], ["bx"]),
            (r"\ma\M", ["a", "x a"], ["ab", "ba", "_a"]),
            (r"\ya", ["a"], ["xa"]),
            (r"a\Y", ["ax"], ["a"]),
            ("^[[:digit:]_]+$", ["1_2"], ["a", "1:", "", "٣"]),
            (r"^\d\w\s$", ["1a "], ["1- ", "٣a "]),
            (r"^\W$", ["-"], ["a", "--"]),
            ("[]a]", ["]", "a"], ["["]),
            ("[^]a]", ["b"], ["]", "a"]),
            ("^[a-c-]$", ["b", "-"], ["d"]),
            ("[[.-.]]", ["-"], ["."]),
            ("^a{2}$", ["aa"], ["a", "aaa"]),
            ("^a{2,}$", ["aa", "aaa"], ["a"]),
            ("^{x}$", ["{x}"], ["x"]),
            ("^(a|b)c?$", ["a", "bc"], ["c"]),
            ("***=a.b|", ["a.b|"], ["axb|", "a.b"]),
            ("***:a|b", ["a"], ["c"]),
            ("(?i)AK", ["ak"], ["a\u212a"]),
            ("(?ic)AB", ["AB"], ["ab"]),
            (r"^\x41\u0042\012?", ["AB"], ["ab"]),
            ("^(?!a)", ["b", ""], ["a"]),
            ("(?<=a)b", ["ab"], ["b"]),
            (r"\#&&--~~||", ["#&&--~~"], []),
            ("^[&&--~~|[]$", ["&", "[", "~"], ["\u20ac"]),
            ("ä[ä-ü]$", ["äö"], ["äa"]),
            ("", ["", "x"], []),
        ]:
            pattern = compile_regex(expression)
            for name in matching:
                self.assertTrue(pattern.search(name), (expression, name))
            for name in other:
                self.assertFalse(pattern.search(name), (expression, name))

    def test_refused(self) -> None:
        """What is no regular expression, or none for us, is refused with the reason."""
        long = "it could take too long to match (repetition within repetition, or too many alternatives)"
        for expression, reason in {
            "(": "parentheses () not balanced",
            "a)": "parentheses () not balanced",
            "[a": "brackets [] not balanced",
            "[b-a]": "invalid character range",
            "[[:x:]]": "invalid character class",
            "[[.ab.]]": "invalid collating element",
            "*": "quantifier operand invalid",
            "a**": "quantifier operand invalid",
            "a+*": "quantifier operand invalid",
            "^*": "quantifier operand invalid",
            "{1": "quantifier operand invalid",
            "a(?P<x>b)": "quantifier operand invalid",
            "a{1": "braces {} not balanced",
            "a{2,1}": "invalid repetition count(s)",
            "a{256}": "invalid repetition count(s)",
            "\\": r"invalid escape \ sequence",
            r"\q": r"invalid escape \ sequence",
            r"\uxyz": r"invalid escape \ sequence",
            r"\U00110000": r"invalid escape \ sequence",
            "(?P<x>b)": "invalid embedded option",
            "(?n)a": "the embedded option (?n) is not supported",
            r"(a)\1": "back references are not supported",
            "(?<=a*)b": "look-behind requires fixed-width pattern is not supported",
            "(" * 30 + ")" * 30: "regular expression is too complex",
            "(a*)*": long,
            "(a|a)*": long,
            "(a|b)(c|d|e){12}": long,
            "a?" * 30: long,
            "a*" * 4: long,
        }.items():
            error = self.assertRaises(InvalidRegex, compile_regex, expression)
            self.assertEqual(str(error), reason, expression)

    def test_usefulOnesAreNotTooLong(self) -> None:
        """Expressions that people write are taken."""
        for expression in ("^(.*)@(.*)$", "^(repl|standby|barman)_[0-9]+$", r"^(?:\w+\.)?x$", "^.*-.*$"):
            compile_regex(expression)

    @given(st.text(st.sampled_from("ab01^$|().*+?{},[]:=-\\dwsmyAZxu<>!i\u00e4")), st.text("ab", max_size=63))
    def test_anyText(self, expression: str, name: str) -> None:
        """Whatever is given, it is a pattern that can be searched for or the one error."""
        with contextlib.suppress(InvalidRegex):
            compile_regex(expression).search(name)
