"""
Queries over rows that are given.

What PostgreSQL answers to the same queries is compared in `tests/integration/test_sql_like_postgres.py`; here
is what has no counterpart there, and what must hold for any text.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from sql_helpers import environment, make_ready, query, rows, value
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalsenderError
from walsender.sql import (
    Action,
    Budget,
    Column,
    Function,
    Query,
    Relation,
    SqlError,
    find_type,
    parse_statements,
    prepared,
)
from walsender.sql.budget import MAX_BYTES
from walsender.sql.errors import (
    InRecovery,
    LimitExceeded,
    NotSupported,
    StatementTimeout,
    TooComplex,
    UndefinedTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from walsender.sql import PgType


def pg_type(name: str) -> PgType:
    """Return a type by its name."""
    found = find_type(name)
    assert found is not None
    return found


INT4, TEXT, BOOL, PG_LSN = map(pg_type, ("int4", "text", "bool", "pg_lsn"))

STANDBYS = Relation(
    (Column("pid", INT4), Column("state", TEXT), Column("sent_lsn", PG_LSN)),
    lambda: [(1, "streaming", 0x3000060), (2, "catchup", 0x2000000), (3, "startup", None)],
)


class RelationTests(SynchronousTestCase):
    """Relations of the environment."""

    def setUp(self) -> None:
        """Give one relation."""
        self.environment = environment(relation={"standbys": STANDBYS}.get)

    def test_isReadByItsName(self) -> None:
        """A relation is found by its name, also with its schema and database."""
        for name in (
            "standbys",
            "pg_catalog.standbys",
            "walsender.pg_catalog.standbys",
            '"standbys"',
            "Standbys",
        ):
            self.assertEqual([("3",)], rows(f"SELECT count(*) FROM {name}", self.environment), name)

    def test_hasNoOtherSchema(self) -> None:
        """In another schema or database there is none."""
        for name in ("public.standbys", "other.pg_catalog.standbys"):
            error = self.assertRaises(UndefinedTable, rows, f"TABLE {name}", self.environment)
            self.assertEqual(f'relation "{name}" does not exist', error.message)

    def test_typedComparisons(self) -> None:
        """A literal takes the type of the column that it is compared with."""
        text = "SELECT pid FROM standbys WHERE sent_lsn >= '0/02000000' AND pid < '2'"
        self.assertEqual([("1",)], rows(text, self.environment))

    def test_differences(self) -> None:
        """Differences of positions are numbers, and NULL stays NULL."""
        text = "SELECT pid, pg_wal_lsn_diff('0/3000060', sent_lsn) FROM standbys ORDER BY 2 DESC"
        self.assertEqual([("3", None), ("2", "16777312"), ("1", "0")], rows(text, self.environment))

    def test_joinedWithItself(self) -> None:
        """Who is ahead of whom."""
        text = "SELECT a.pid, b.pid FROM standbys a JOIN standbys b ON a.sent_lsn > b.sent_lsn"
        self.assertEqual([("1", "2")], rows(text, self.environment))

    def test_isReadOnceForAnInnerQueryThatIsTheSame(self) -> None:
        """A subquery that names no column of the query around it runs once."""
        reads: list[int] = []

        def read() -> Iterator[tuple[int]]:
            reads.append(1)
            yield (1,)

        relation = Relation((Column("n", INT4),), read)
        around = environment(relation={"one": relation, "standbys": STANDBYS}.get)
        rows("SELECT pid FROM standbys WHERE pid = (SELECT n FROM one)", around)
        self.assertEqual([1], reads)


class LazinessTests(SynchronousTestCase):
    """Nothing is computed that is not asked for: monitoring relies on it."""

    def setUp(self) -> None:
        """Give functions of a server in recovery."""
        self.calls: list[str] = []
        self.environment = environment(
            functions={
                "pg_is_in_recovery": [Function("pg_is_in_recovery", (), BOOL, lambda _: True)],
                "pg_current_wal_lsn": [Function("pg_current_wal_lsn", (), PG_LSN, self._refuse)],
            }
        )

    def _refuse(self, _: object) -> object:
        self.calls.append("called")
        raise InRecovery("recovery is in progress")

    def test_caseComputesTheChosenBranchOnly(self) -> None:
        """What is in another branch may fail."""
        for text in (
            "SELECT CASE WHEN pg_is_in_recovery() THEN 1 ELSE pg_current_wal_lsn() - '0/0' END",
            "SELECT case pg_is_in_recovery() when 't' then 1 else pg_current_wal_lsn() - '0/0' end",
            "SELECT COALESCE(1, pg_current_wal_lsn() - '0/0')",
        ):
            self.assertEqual("1", value(text, self.environment))
        self.assertEqual("t", value("SELECT true OR pg_current_wal_lsn() = '0/0'", self.environment))
        self.assertEqual([], self.calls)

    def test_calledIfAsked(self) -> None:
        """The error of a function that is called reaches the client."""
        self.assertRaises(InRecovery, rows, "SELECT pg_current_wal_lsn()", self.environment)


class ParameterTests(SynchronousTestCase):
    """``$1`` and so on."""

    def types(self, text: str, *declared: str) -> list[str]:
        """Return the types that the parameters of a query get."""
        around = environment(parameter_types=[find_type(name) for name in declared])
        make_ready(text, around)
        return [one.name for one in around.parameter_types if one is not None]

    def test_typesFromWhereTheyStand(self) -> None:
        """A parameter has the type of what it is compared with, cast to, or given to."""
        for text, types in (
            ("SELECT $1", ["text"]),
            ("SELECT $1 + 1", ["int4"]),
            ("SELECT $1::pg_lsn - '0/0'", ["pg_lsn"]),
            ("SELECT $2 = 'x'::text, $1 > now()", ["timestamptz", "text"]),
            ("SELECT length($1)", ["text"]),
            ("SELECT 1 LIMIT $1 OFFSET $2", ["int8", "int8"]),
            ("SELECT 1 WHERE $1", ["bool"]),
            ("SELECT 1 WHERE 1 IN ($1, $2)", ["int4", "int4"]),
            ("SELECT 1 = ANY ($1)", ["_int4"]),
            ("SELECT 'a' = ANY ($1)", ["_text"]),
            ("SELECT $1 || 'a'", ["text"]),
            ("SELECT $1 LIKE 'a'", ["text"]),
            ("SELECT CASE WHEN true THEN $1 ELSE 1.5 END", ["numeric"]),
            ("SELECT COALESCE($1, 1)", ["int4"]),
        ):
            self.assertEqual(types, self.types(text), text)

    def test_declaredTypeStays(self) -> None:
        """What the client has declared is not changed."""
        self.assertEqual(["int8"], self.types("SELECT $1 + 1", "int8"))
        error = self.assertRaises(SqlError, self.types, "SELECT length($1)", "int4")
        self.assertEqual("42883", error.sqlstate)

    def test_twoTypesAreAnError(self) -> None:
        """A parameter cannot have two types."""
        error = self.assertRaises(SqlError, self.types, "SELECT $1::int, length($1)")
        self.assertEqual("42883", error.sqlstate)

    def test_values(self) -> None:
        """Their values are used, NULL too."""
        around = environment(parameter_types=[INT4, TEXT], parameters=(3, None))
        self.assertEqual([("6", None, "t")], rows("SELECT $1 * 2, $2, $2 IS NULL", around))


class ActionTests(SynchronousTestCase):
    """Functions that change something are not called by a query, but asked for in its rows."""

    def setUp(self) -> None:
        """Give one."""
        self.function = Function("act", (INT4,), BOOL, lambda _: self.fail("called"), is_action=True)
        self.environment = environment(
            functions={"act": [self.function]}, relation={"standbys": STANDBYS}.get
        )

    def test_oneForEachRowOfTheResult(self) -> None:
        """Only rows that are left after WHERE and LIMIT ask for it."""
        ready = make_ready(
            "SELECT act(pid), pid FROM standbys WHERE pid > 1 ORDER BY pid LIMIT 1", self.environment
        )
        self.assertEqual([(Action(self.function, (2,)), 2)], [tuple(row) for row in ready.rows()])

    def test_onlyInTheSelectList(self) -> None:
        """Where it could be called more or less often than somebody thinks, it is refused."""
        for text in (
            "SELECT NOT act(1)",
            "SELECT 1 WHERE act(1)",
            "SELECT (SELECT act(1))",
            "SELECT * FROM (SELECT act(1)) s",
            "SELECT act(1) UNION SELECT true",
            "SELECT DISTINCT act(1)",
            "SELECT CASE WHEN true THEN act(1) END",
            "SELECT 1 ORDER BY act(1)",
            "SELECT count(*) FROM act(1), act(2)",
            "WITH a AS (SELECT act(1)) SELECT 1",
        ):
            error = self.assertRaises(NotSupported, make_ready, text, self.environment)
            self.assertEqual("act() is not supported in this place", error.message)

    def test_notSortedBy(self) -> None:
        """What is not known yet cannot be sorted by."""
        for text in ("SELECT act(1) ORDER BY 1", "SELECT act(1) AS a ORDER BY a"):
            self.assertRaises(SqlError, make_ready, text, self.environment)

    def test_behindFrom(self) -> None:
        """Behind FROM it is called before the query runs, which then sees its row."""
        pair = (Column("name", TEXT), Column("lsn", PG_LSN))
        function = Function("make", (TEXT,), pg_type("record"), lambda _: None, columns=pair, is_action=True)
        around = environment(functions={"make": [function]})
        ready = make_ready("SELECT lsn, name FROM make('a' || 'b')", around)
        assert ready.source_action is not None
        self.assertEqual(Action(function, ("ab",)), ready.source_action())
        around.action_row = ("ab", 16)
        self.assertEqual([(16, "ab")], [tuple(row) for row in ready.rows()])


class BoundTests(SynchronousTestCase):
    """No statement takes more than it may."""

    def test_time(self) -> None:
        """A query that would run for ever ends when its time is up."""
        ticks = iter(range(10**9))
        budget = Budget(3, lambda: next(ticks), bool)
        text = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 9) b"
        error = self.assertRaises(StatementTimeout, rows, text, environment(budget=budget))
        self.assertEqual("canceling statement due to statement timeout", error.message)

    def test_restsMeanwhile(self) -> None:
        """A query that computes lets other threads run, again and again."""
        times = (number / 1000 for number in range(10**9))
        rests: list[float] = []
        budget = Budget(1000, lambda: next(times), rests.append)
        rows("SELECT count(*) FROM generate_series(1, 5000)", environment(budget=budget))
        self.assertGreater(len(rests), 10)

    def test_cancelled(self) -> None:
        """A query whose client has asked for its end ends."""
        budget = Budget(1000)
        budget.cancelled = True
        error = self.assertRaises(
            StatementTimeout, rows, "SELECT * FROM generate_series(1, 1000000)", environment(budget=budget)
        )
        self.assertEqual("canceling statement due to user request", error.message)

    def test_rows(self) -> None:
        """Rows that are kept are counted, wherever they are kept."""
        many = "generate_series(1, 1000000)"
        for text in (
            f"SELECT * FROM {many}",
            f"SELECT count(*) FROM generate_series(1, 1) a, {many} b",
            f"SELECT g, count(*) FROM {many} g GROUP BY g",
            f"SELECT count(*) FROM (SELECT * FROM {many}) s",
        ):
            self.assertRaises(LimitExceeded, rows, text)

    def test_texts(self) -> None:
        """Texts that grow are counted."""
        doubled = "'x'"
        for _ in range(30):
            doubled = f"(SELECT t || t FROM (SELECT {doubled} AS t) s)"
        for text in (f"SELECT {doubled}", f"SELECT lpad('x', {MAX_BYTES + 1})"):
            self.assertRaises((LimitExceeded, TooComplex), rows, text)
        nested = "'xxxxxxxxxx'"
        for _ in range(8):
            nested = f"replace({nested}, 'x', 'xxxxxxxxxx')"
        self.assertRaises(LimitExceeded, rows, f"SELECT {nested}")

    def test_depth(self) -> None:
        """What is nested too deeply is refused, in every way of nesting."""
        deep = 2000
        for text in (
            "(" * deep + "1" + ")" * deep,
            "- " * deep + "1",
            "NOT " * deep + "true",
            "+".join("1" * deep * 2),
            "1" + "::int" * deep * 2,
            "CASE WHEN true THEN " * deep + "1" + " END" * deep,
            "(SELECT " * deep + "1" + ")" * deep,
            "upper(" * deep + "'a'" + ")" * deep,
        ):
            self.assertRaises(TooComplex, rows, f"SELECT {text}")
        self.assertRaises(TooComplex, rows, "SELECT 1" + " UNION SELECT 1" * deep)
        self.assertRaises(TooComplex, rows, "SELECT 1 FROM a" + " JOIN a ON true" * deep * 2)

    def test_longListsAreNotDeep(self) -> None:
        """AND, OR, IN and VALUES may be long."""
        many = 1000
        self.assertEqual("t", value("SELECT " + " AND ".join(["true"] * many)))
        self.assertEqual("t", value(f"SELECT {many} IN ({', '.join(map(str, range(many + 1)))})"))
        self.assertEqual(str(many), value(f"SELECT count(*) FROM (VALUES {', '.join(['(1)'] * many)}) v"))

    def test_patternsTakeLinearTime(self) -> None:
        """A pattern on which backtracking would take for ever ends."""
        text = "a" * 2000
        self.assertEqual("f", value(f"SELECT '{text}' ~ '^(a+)+(a|aa)*$x'"))
        self.assertEqual("f", value(f"SELECT '{text}' LIKE '%a%a%a%a%a%a%a%b'"))

    def test_wordsAreCounted(self) -> None:
        """A statement of too many words is refused."""
        self.assertRaises(TooComplex, parse_statements, "SELECT " + "1," * 20_000)


WORDS = """
SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET UNION ALL JOIN LEFT ON USING AS WITH VALUES CASE WHEN
THEN ELSE END AND OR NOT IN IS NULL TRUE LIKE BETWEEN EXISTS ANY ARRAY CAST DISTINCT INTERVAL ( ) ( ) [ ] ,
, . ; * + - / % = < :: || ~ 'a' '1' '0/1' '1day' '{1,2}' 1 2.5 1e9 $1 a b g standbys pid state sent_lsn pid
sent_lsn count sum max length round now generate_series coalesce int4 text pg_lsn numeric timestamptz float8
EXTRACT epoch SET SHOW BEGIN
""".split()  # noqa: SIM905 (words read better so)


# What the wire gives: stray bytes are low surrogates, high ones there are none.
ANY_CHARACTER = st.characters(exclude_categories=["Cs"]) | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF
)


class AnyTextTests(SynchronousTestCase):
    """Whatever a client sends: rows, or an error with a SQLSTATE."""

    def run_text(self, text: str) -> None:
        """Run all queries of a text."""
        try:
            for statement in parse_statements(text):
                if not isinstance(statement, Query):
                    continue
                around = environment(budget=Budget(10), relation={"standbys": STANDBYS}.get)
                ready = prepared(statement, around)
                around.parameters = [None] * len(around.parameter_types)
                ready.rows()
        except WalsenderError as error:
            self.assertNotEqual("XX000", error.sqlstate)

    @given(st.text(alphabet=st.one_of(st.sampled_from(string.printable), ANY_CHARACTER), max_size=60))
    def test_anyCharacters(self, text: str) -> None:
        """Any characters."""
        self.run_text(text)

    @given(st.lists(st.sampled_from(WORDS), max_size=25))
    def test_anyWords(self, words: list[str]) -> None:
        """Any words of SQL, in any order."""
        self.run_text("SELECT " + " ".join(words))

    @given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.integers(0, 12))
    def test_wordsInsideAQuery(self, words: list[str], place: int) -> None:
        """A good query with some words more."""
        text = "SELECT pid , sent_lsn - '0/0' FROM standbys WHERE state = 'a' ORDER BY 1"
        good = text.split()
        self.run_text(" ".join([*good[:place], *words, *good[place:]]))

    @given(st.text(alphabet="ab()[]*+?{}|^$\\.1,-:", max_size=20), st.text(alphabet="ab1", max_size=10))
    def test_anyPattern(self, pattern: str, text: str) -> None:
        """Any regular expression."""
        around = environment(parameter_types=[TEXT, TEXT], parameters=(text, pattern))
        try:
            rows("SELECT $1 ~ $2, $1 ~* $2, $1 LIKE $2", around)
        except SqlError as error:
            self.assertIn(error.sqlstate, {"2201B", "22025", "0A000"})


class EqualTreesTests(SynchronousTestCase):
    def test_placeDoesNotMatter(self) -> None:
        """Two expressions that say the same are equal wherever they stand."""
        self.assertEqual(query("SELECT a + 1"), query("select   a+1"))
        self.assertNotEqual(query("SELECT a + 1"), query("SELECT a + 2"))
