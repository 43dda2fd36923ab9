"""What a query makes of long texts, arrays and rows: it accounts for them, and lets others run meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sql_helpers import environment, rows
from twisted.trial.unittest import SynchronousTestCase

from walsender.sql import Budget, Column, Environment, Function, SqlError, find_type
from walsender.sql.budget import MAX_BYTES, MAX_ROWS, MAX_TEXT
from walsender.sql.errors import LimitExceeded, StatementTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator


class MemoryTests(SynchronousTestCase):
    """What is made takes memory, even if it is not kept."""

    def test_longValues(self) -> None:
        """Whatever makes a long text or an array of one is refused when there are many."""
        half = MAX_TEXT // 2
        for made in (
            "quote_literal(quote_literal(x))",
            "reverse(x)",
            "substr(x, 2)",
            f"x::varchar({half - 1})",
            "concat(x, x, x)",
            "array_to_string(ARRAY[x, x], x)",
            "ARRAY[x]",
            "ARRAY[x]::text",
            "(SELECT array_agg(x) FROM generate_series(1, 50000))",
            "ARRAY(SELECT x FROM generate_series(1, 50000))",
        ):
            many = ", ".join([made] * (MAX_BYTES // half + 1))
            text = f"SELECT {many} FROM (SELECT lpad('', {half}, '''') AS x) t"
            self.assertRaises(LimitExceeded, rows, text)

    def test_wideRows(self) -> None:
        """A row of many values counts for more than one of few."""
        row = ", ".join(["reverse('abc')"] * 1000)
        self.assertRaises(LimitExceeded, rows, f"SELECT {row} FROM generate_series(1, 300)")
        self.assertEqual(200, len(rows(f"SELECT {row} FROM generate_series(1, 200)")))

    def test_listsOfRows(self) -> None:
        """Rows that are all needed before the first can be used are counted as they come."""
        come: list[int] = []

        def series(_: Environment) -> Iterator[tuple[int]]:
            for number in range(2 * MAX_ROWS):
                come.append(number)
                yield (number,)

        kind = find_type("int8")
        assert kind is not None
        functions = {"series": [Function("series", (), kind, series, columns=(Column("n", kind),))]}
        for text in "generate_series(1, 2) a, series() b", "series() AS b(x)":
            come.clear()
            around = environment(functions=functions)
            self.assertRaises(LimitExceeded, rows, f"SELECT count(*) FROM {text}", around)
            self.assertLess(len(come), 2 * MAX_ROWS)

    def test_sorting(self) -> None:
        """What is sorted is not too much to be compared in one go."""
        long = ", ".join(["(lpad('a', 500000))"] * 4)
        text = f"SELECT 1 FROM (VALUES {long}) t(x), generate_series(1, 100) ORDER BY x"
        self.assertRaises(LimitExceeded, rows, text)


class TimeTests(SynchronousTestCase):
    """What is done to each character of a text looks at the clock."""

    def test_manyCharacters(self) -> None:
        """No function of texts holds the interpreter, whatever the texts are."""
        text = "lpad('', 100000, 'a')"
        for call in (
            f"btrim({text}, lpad('a', 100000, 'b'))",
            f"split_part({text}, 'a', 90000)",
            f"upper({text})",
        ):
            ticks = iter(range(10**9))
            budget = Budget(2, lambda ticks=ticks: next(ticks), bool)
            text_of_call = f"SELECT length({call})"
            self.assertRaises(StatementTimeout, rows, text_of_call, environment(budget=budget))

    def test_noNumbers(self) -> None:
        """A text of a megabyte is not read as a number or a time, nor quoted whole."""
        for kind, sqlstate in (
            *((name, "22P02") for name in ("inet", "numeric", "int4", "pg_lsn")),
            *((name, "22007") for name in ("interval", "timestamptz", "date")),
        ):
            text = f"SELECT lpad('', {MAX_TEXT}, '1 ')::{kind}"
            error = self.assertRaises(SqlError, rows, text)
            self.assertEqual(sqlstate, error.sqlstate)
            self.assertLess(len(error.message), 300)
