"""The grammar of queries.

Source: PostgreSQL's documentation, "SELECT" and "VALUES".
"""

from __future__ import annotations

from typing import Final

from .errors import NotSupported, SqlSyntaxError, UndefinedTable
from .expressions import ExpressionReader
from .lexer import Kind
from .nodes import (
    Call,
    CommonTable,
    Expression,
    Join,
    Query,
    Select,
    SelectItem,
    SetOperation,
    Star,
    TableExpression,
    TableFunction,
    TableName,
    TableQuery,
    Values,
)

_SET_LEVELS: Final = {"union": 1, "except": 1, "intersect": 2}


_DATABASE: Final = "walsender"


_CATALOG: Final = "pg_catalog"
_SCHEMAS: Final = frozenset({_CATALOG, "information_schema"})


def _as_query(body: Select | Values | SetOperation | Query) -> Query:
    return body if isinstance(body, Query) else Query(body)


class QueryReader(ExpressionReader):
    """Reads queries."""

    def query(self) -> Query:
        """Take a query, with WITH, ORDER BY and LIMIT."""
        with self.deeper():
            common = self._common_tables()
            body = self._set_operations(0)
            order = self.sort_keys()
            limit, offset = self._limits()
            if self.is_word("for"):
                raise NotSupported("FOR UPDATE and FOR SHARE are not supported", self.at + 1)
            if isinstance(body, Query) and not (common or order or limit or offset):
                return body
            return Query(body, common, order, limit, offset)

    def _common_tables(self) -> tuple[CommonTable, ...]:
        if not self.take_word("with"):
            return ()
        if self.is_word("recursive"):
            raise NotSupported("WITH RECURSIVE is not supported", self.at + 1)
        found: list[CommonTable] = []
        while not found or self.take_operator(","):
            at = self.at
            name = self.name()
            columns = self.names() if self.is_operator("(") else ()
            self.expect_word("as")
            self.take_word("not")
            self.take_word("materialized")
            self.expect_operator("(")
            found.append(CommonTable(name, columns, self.query(), at))
            self.expect_operator(")")
        return tuple(found)

    def _limits(self) -> tuple[Expression | None, Expression | None]:
        limit = offset = None
        while True:
            if limit is None and self.take_word("limit"):
                limit = Call("limit_all") if self.take_word("all") else self.expression()
            elif offset is None and self.take_word("offset"):
                offset = self.expression()
                self.take_word("row") or self.take_word("rows")
            elif limit is None and self.take_word("fetch"):
                if not self.take_word("first"):
                    self.expect_word("next")
                limit = self.expression()
                if not self.take_word("row"):
                    self.expect_word("rows")
                self.expect_word("only")
            else:
                return (None if isinstance(limit, Call) and limit.name == "limit_all" else limit), offset

    def _set_operations(self, level: int) -> Select | Values | SetOperation | Query:
        left: Select | Values | SetOperation | Query = self._simple()
        while self.token.kind is Kind.WORD and _SET_LEVELS.get(self.token.text, 0) > level:
            at = self.at
            operator = self.advance().text
            keep = self.take_word("all")
            if not keep:
                self.take_word("distinct")
            right = self._set_operations(_SET_LEVELS[operator])
            left = SetOperation(operator, keep, _as_query(left), _as_query(right), at)
        return left

    def _simple(self) -> Select | Values | Query:
        at = self.at
        if self.take_operator("("):
            query = self.query()
            self.expect_operator(")")
            return query
        if self.take_word("values"):
            rows = [self._row()]
            while self.take_operator(","):
                rows.append(self._row())
            for row in rows:
                if len(row) != len(rows[0]):
                    raise SqlSyntaxError("VALUES lists must all be the same length", row[0].at + 1)
            return Values(tuple(rows), at)
        if self.take_word("table"):
            table = TableName(self._qualified(), at=at)
            return Select((SelectItem(Star(None, at)),), (table,), at=at)
        self.expect_word("select")
        return self._select(at)

    def _row(self) -> tuple[Expression, ...]:
        self.expect_operator("(")
        row = self.expressions()
        self.expect_operator(")")
        return row

    def _select(self, at: int) -> Select:
        distinct = self.take_word("distinct")
        if distinct and self.is_word("on"):
            raise NotSupported("DISTINCT ON is not supported", self.at + 1)
        if not distinct:
            self.take_word("all")
        items: list[SelectItem] = []
        if not (self.is_word("from", "where") or self.token.kind is Kind.END or self.is_operator(";", ")")):
            items.append(self._item())
            while self.take_operator(","):
                items.append(self._item())
        if self.is_word("into"):
            raise NotSupported("SELECT INTO is not supported", self.at + 1)
        tables: list[TableExpression] = []
        if self.take_word("from"):
            tables.append(self._joins())
            while self.take_operator(","):
                tables.append(self._joins())
        where = self.expression() if self.take_word("where") else None
        groups = None
        if self.take_word("group"):
            self.expect_word("by")
            if self.is_word("grouping", "rollup", "cube") or self.is_operator("("):
                self._refuse_grouping_sets()
            groups = self.expressions()
        having = self.expression() if self.take_word("having") else None
        if self.is_word("window"):
            raise NotSupported("window functions are not supported", self.at + 1)
        return Select(tuple(items), tuple(tables), where, groups, having, distinct, at)

    def _refuse_grouping_sets(self) -> None:
        if self.token.kind is Kind.WORD and self.peek().text in {"(", "sets"}:
            raise NotSupported("GROUPING SETS, ROLLUP and CUBE are not supported", self.at + 1)

    def _item(self) -> SelectItem:
        if self.is_operator("*"):
            return SelectItem(Star(None, self.advance().at))
        expression = self.expression()
        if self.take_word("as"):
            return SelectItem(expression, self.any_name())
        return SelectItem(expression, "" if isinstance(expression, Star) else self.bare_label())

    def _joins(self) -> TableExpression:
        with self.deeper():
            left = self._table()
            while (joined := self._join(left)) is not None:
                left = joined
            return left

    def _join(self, left: TableExpression) -> TableExpression | None:
        at = self.at
        natural = self.take_word("natural")
        if self.take_word("cross"):
            self.expect_word("join")
            return Join("cross", left, self._table(), at=at)
        kind = "inner"
        if self.is_word("left", "right", "full"):
            kind = self.advance().text
            self.take_word("outer")
            self.expect_word("join")
        elif self.take_word("inner"):
            self.expect_word("join")
        elif not self.take_word("join"):
            if natural:
                raise self.unexpected()
            return None
        right = self._table()
        if natural:
            return Join(kind, left, right, natural=True, at=at)
        if self.take_word("using"):
            return Join(kind, left, right, using=self.names(), at=at)
        self.expect_word("on")
        return Join(kind, left, right, on=self.expression(), at=at)

    def _table(self) -> TableExpression:
        at = self.at
        if self.is_word("lateral"):
            raise NotSupported("LATERAL is not supported", at + 1)
        if self.take_operator("("):
            if self.starts_query() or self.is_operator("("):
                place = self._place
                try:
                    query = self.query()
                    self.expect_operator(")")
                except SqlSyntaxError:
                    if not self._tokens[place].text == "(":
                        raise
                    self._place = place  # joins in parentheses that begin with parentheses
                else:
                    alias, columns = self._alias()
                    return TableQuery(query, alias, columns, at)
            inner = self._joins()
            self.expect_operator(")")
            if self.is_word("as") or self.is_name():
                raise NotSupported("an alias of joins is not supported", self.at + 1)
            return inner
        self.take_word("only")
        names = self._qualified()
        if self.is_operator("("):
            call = self._call(names[-1], at)
            assert isinstance(call, Call), "this is what it reads"
            if self.take_words("with", "ordinality"):
                raise NotSupported("WITH ORDINALITY is not supported", at + 1)
            alias, columns = self._alias()
            return TableFunction(call, alias, columns, at)
        self.take_operator("*")
        alias, columns = self._alias()
        if self.is_word("tablesample"):
            raise NotSupported("TABLESAMPLE is not supported", self.at + 1)
        return TableName(names, alias, columns, at)

    def _qualified(self) -> tuple[str, ...]:
        """Take the name of a relation or function, without the schema and database that all are in."""
        at = self.at
        if not self.is_name(of_function=True):
            raise self.unexpected()
        names = [self.advance().text]
        while self.take_operator("."):
            names.append(self.any_name())
        if len(names) > 3:
            raise SqlSyntaxError(
                f"improper qualified name (too many dotted names): {'.'.join(names)}", at + 1
            )
        if len(names) > 1 and (names[-2] not in _SCHEMAS or names[0] not in {*_SCHEMAS, _DATABASE}):
            raise UndefinedTable(f'relation "{".".join(names)}" does not exist', at + 1)
        return tuple(names)

    def _alias(self) -> tuple[str, tuple[str, ...]]:
        if self.take_word("as"):
            alias = self.name()
        elif self.is_name():
            alias = self.advance().text
        else:
            return "", ()
        return alias, self.names() if self.is_operator("(") else ()
