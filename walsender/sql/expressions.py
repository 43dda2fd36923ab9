"""
The grammar of expressions, by precedence.

Source: PostgreSQL's documentation, "Operator Precedence" and "Value Expressions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import NotSupported, UndefinedParameter, UndefinedType
from .lexer import Kind
from .nodes import (
    ArrayItems,
    Call,
    Case,
    Cast,
    ColumnName,
    Constant,
    Distinct,
    Expression,
    InList,
    Logic,
    Operation,
    Parameter,
    Quantified,
    SortKey,
    Star,
    Subquery,
    Test,
)
from .type_names import TypeNameReader

if TYPE_CHECKING:
    from .nodes import Query

_OR, _AND, _NOT, _IS, _COMPARISON, _RANGE, _OTHER, _SUM, _PRODUCT, _POWER, _AT, _COLLATE, _SIGN = range(1, 14)
_COMPARISONS: Final = frozenset(("<", ">", "=", "<=", ">=", "<>"))
_LEVELS: Final = {
    **dict.fromkeys(_COMPARISONS, _COMPARISON),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "%"), _PRODUCT),
    "^": _POWER,
}
_MATCHES: Final = {"like": "~~", "ilike": "~~*"}
_VALUE_WORDS: Final = frozenset(
    "current_user session_user user current_role current_catalog current_schema current_timestamp "
    "localtimestamp current_date".split()
)
_UNSUPPORTED_WORDS: Final = frozenset("row grouping xmlelement".split())
_COLLATIONS: Final = frozenset(("default", "C", "POSIX", "ucs_basic", "c", "posix"))
_TRIMS: Final = {"both": "btrim", "leading": "ltrim", "trailing": "rtrim"}
_WITH_ARGUMENTS: Final = frozenset(("coalesce", "greatest", "least"))
_MAX_PARAMETER: Final = 65535


class ExpressionReader(TypeNameReader):
    """Reads expressions; what reads queries is built upon it."""

    def query(self) -> Query:
        """Take a query."""
        raise NotImplementedError

    def starts_query(self) -> bool:
        """Return whether a query begins here."""
        return self.is_word("select", "with", "values", "table")

    def expression(self, level: int = 0) -> Expression:
        """Take an expression whose operators all bind tighter than *level*."""
        with self.deeper():
            left = self._prefix()
            while (longer := self._longer(left, level)) is not None:
                left = longer
            return left

    def expressions(self) -> tuple[Expression, ...]:
        """Take one or more, with commas between."""
        found = [self.expression()]
        while self.take_operator(","):
            found.append(self.expression())
        return tuple(found)

    # What may follow an operand

    def _longer(self, left: Expression, level: int) -> Expression | None:
        """Take an operator and what is right of it, if it binds tighter than *level*."""
        at = self.at
        if self.token.kind is Kind.WORD:
            return self._word_behind(left, level, at)
        if self.token.kind is not Kind.OPERATOR:
            return None
        operator = self.token.text
        if operator == "::":
            self.advance()
            return Cast(left, self.type_name(), at)
        if operator == "[":
            self.advance()
            index = self.expression()
            self.expect_operator("]")
            return Call("array_element", (left, index), at=at)
        if operator in {",", "(", ")", "]", ".", ";", ":", ":=", "=>", ".."}:
            return None
        mine = _LEVELS.get(operator, _OTHER)
        if mine <= level:
            return None
        self.advance()
        return self._operation(left, operator, mine, at)

    def _operation(self, left: Expression, operator: str, level: int, at: int) -> Expression:
        if self.is_word("any", "some", "all") and self.peek().text == "(":
            is_all = self.advance().text == "all"
            self.expect_operator("(")
            source = self.query() if self.starts_query() else self.expression()
            self.expect_operator(")")
            return Quantified(left, operator, is_all, source, at)
        right = self.expression(level)
        if level == _COMPARISON and self.is_operator(*_COMPARISONS):
            raise self.unexpected()
        return Operation(operator, left, right, at)

    def _word_behind(self, left: Expression, level: int, at: int) -> Expression | None:
        word = self.token.text
        match word:
            case "or" | "and" if level < (mine := _OR if word == "or" else _AND):
                operands = [left]
                while self.take_word(word):
                    operands.append(self.expression(mine))
                return Logic(word, tuple(operands), at)
            case "is" if level < _IS:
                self.advance()
                return self._is(left, at)
            case "isnull" | "notnull" if level < _IS:
                self.advance()
                return Test(left, "null", word == "notnull", at)
            case "not" if level < _RANGE and self.peek().text in {
                "between",
                "in",
                "like",
                "ilike",
                "similar",
            }:
                self.advance()
                return self._range(left, at, negated=True)
            case "between" | "in" | "like" | "ilike" | "similar" if level < _RANGE:
                return self._range(left, at, negated=False)
            case "at" if level < _AT and self.peek().text == "time":
                self.advance()
                self.expect_word("time", "zone")
                return Call("timezone", (self.expression(_AT), left), at=at)
            case "collate" if level < _COLLATE:
                self.advance()
                name = self.any_name()
                while self.take_operator("."):
                    name = self.any_name()
                if name not in _COLLATIONS:
                    raise UndefinedType(f'collation "{name}" for encoding "SQL_ASCII" does not exist', at + 1)
                return left
            case "operator" if level < _OTHER and self.peek().text == "(":
                self.advance()
                return self._operation(left, self._named_operator(), _OTHER, at)
        return None

    def _named_operator(self) -> str:
        """Take what is in the parentheses of ``OPERATOR(pg_catalog.~)``."""
        self.expect_operator("(")
        while self.is_name() and self.peek().text == ".":
            self.advance()
            self.advance()
        if self.token.kind is not Kind.OPERATOR:
            raise self.unexpected()
        operator = self.advance().text
        self.expect_operator(")")
        return operator

    def _is(self, left: Expression, at: int) -> Expression:
        negated = self.take_word("not")
        if self.take_words("distinct", "from"):
            return Distinct(left, self.expression(_IS), negated, at)
        if self.is_word("null", "true", "false", "unknown"):
            return Test(left, self.advance().text, negated, at)
        raise self.unexpected()

    def _range(self, left: Expression, at: int, *, negated: bool) -> Expression:
        word = self.advance().text
        if word == "in":
            self.expect_operator("(")
            if self.starts_query():
                query = self.query()
                self.expect_operator(")")
                found: Expression = Quantified(left, "=", False, query, at)
                return Logic("not", (found,), at) if negated else found
            items = self.expressions()
            self.expect_operator(")")
            return InList(left, items, negated, at)
        if word == "between":
            symmetric = self.take_word("symmetric")
            if not symmetric:
                self.take_word("asymmetric")
            low = self.expression(_RANGE)
            self.expect_word("and")
            high = self.expression(_RANGE)
            if symmetric:
                low, high = Call("least", (low, high), at=at), Call("greatest", (low, high), at=at)
            found = Logic("and", (Operation(">=", left, low, at), Operation("<=", left, high, at)), at)
            return Logic("not", (found,), at) if negated else found
        if word == "similar":
            raise NotSupported("SIMILAR TO is not supported", at + 1)
        pattern = self.expression(_RANGE)
        if self.is_word("escape"):
            raise NotSupported("LIKE with ESCAPE is not supported", self.at + 1)
        return Operation(("!" if negated else "") + _MATCHES[word], left, pattern, at)

    # Operands

    def _prefix(self) -> Expression:
        at = self.at
        if self.take_word("not"):
            return Logic("not", (self.expression(_NOT),), at)
        if self.is_operator("-", "+"):
            operator = self.advance().text
            operand = self.expression(_SIGN)
            if operator == "-" and isinstance(operand, Constant) and operand.kind == "number":
                # One number, as in PostgreSQL: the smallest of a type is no negated one.
                negative = operand.text.startswith("-")
                return Constant("number", operand.text[1:] if negative else f"-{operand.text}", at)
            return Operation(operator, None, operand, at)
        if self.token.kind is Kind.OPERATOR and self.token.text not in {"(", ")", ",", "."}:
            if self.token.text in _LEVELS or self.token.text in {"::", "[", "]", ";", ":"}:
                raise self.unexpected()
            return Operation(self.advance().text, None, self.expression(_OTHER), at)
        return self._primary(at)

    def _primary(self, at: int) -> Expression:
        token = self.token
        match token.kind:
            case Kind.STRING:
                self.advance()
                return Constant("string", token.text, at)
            case Kind.NUMBER:
                self.advance()
                return Constant("number", token.text, at)
            case Kind.PARAMETER:
                self.advance()
                number = int(token.text[:6])
                if not 0 < number <= _MAX_PARAMETER:
                    raise UndefinedParameter(f"there is no parameter ${token.text}", at + 1)
                return Parameter(number, at)
            case Kind.WORD | Kind.QUOTED:
                return self._named(at)
        if self.take_operator("("):
            if self.starts_query():
                query = self.query()
                self.expect_operator(")")
                return Subquery("scalar", query, at)
            inner = self.expression()
            if self.is_operator(","):
                raise NotSupported("row values are not supported", at + 1)
            self.expect_operator(")")
            return inner
        raise self.unexpected()

    def _named(self, at: int) -> Expression:
        """Take what begins with a name or a key word."""
        if self.token.kind is Kind.WORD and (found := self._key_word(self.token.text, at)) is not None:
            return found
        if (constant := self.typed_constant()) is not None:
            return constant
        if not self.is_name(of_function=True):
            raise self.unexpected()
        names = [self.advance().text]
        while self.take_operator("."):
            if self.take_operator("*"):
                return Star(names[-1], at)
            names.append(self.any_name())
        if self.is_operator("("):
            return self._call(names[-1], at)
        return ColumnName(tuple(names), at)

    def _key_word(self, word: str, at: int) -> Expression | None:
        """Take an expression that begins with a key word of its own."""
        follows_parenthesis = self.peek().text == "(" and self.peek().kind is Kind.OPERATOR
        match word:
            case "null":
                self.advance()
                return Constant("null", "", at)
            case "true" | "false":
                self.advance()
                return Constant("bool", word, at)
            case "case":
                return self._case(at)
            case "cast" if follows_parenthesis:
                self.advance()
                self.expect_operator("(")
                operand = self.expression()
                self.expect_word("as")
                type_name = self.type_name()
                self.expect_operator(")")
                return Cast(operand, type_name, at)
            case "exists" if follows_parenthesis:
                self.advance()
                self.expect_operator("(")
                query = self.query()
                self.expect_operator(")")
                return Subquery("exists", query, at)
            case "array":
                return self._array(at)
            case "extract" | "position" | "substring" | "trim" if follows_parenthesis:
                self.advance()
                return self._special_call(word, at)
            case _ if word in _VALUE_WORDS:
                self.advance()
                if word in {"current_timestamp", "localtimestamp"} and self.take_operator("("):
                    self.integer()  # digits behind the second: always six here
                    self.expect_operator(")")
                elif word == "current_schema" and self.take_operator("("):
                    self.expect_operator(")")
                return Call(word, at=at)
            case _ if word in _UNSUPPORTED_WORDS and follows_parenthesis:
                raise NotSupported(f"{word.upper()} is not supported", at + 1)
        return None

    def _array(self, at: int) -> Expression:
        self.advance()
        if self.take_operator("("):
            query = self.query()
            self.expect_operator(")")
            return Subquery("array", query, at)
        self.expect_operator("[")
        items = () if self.is_operator("]") else self.expressions()
        self.expect_operator("]")
        return ArrayItems(items, at)

    def _case(self, at: int) -> Expression:
        self.advance()
        operand = None if self.is_word("when") else self.expression()
        branches = []
        while self.take_word("when"):
            condition = self.expression()
            self.expect_word("then")
            branches.append((condition, self.expression()))
        if not branches:
            raise self.unexpected()
        otherwise = self.expression() if self.take_word("else") else None
        self.expect_word("end")
        return Case(operand, tuple(branches), otherwise, at)

    def _special_call(self, word: str, at: int) -> Expression:
        """Take the arguments of a function with a syntax of its own."""
        self.expect_operator("(")
        if word == "trim":
            return self._trim(at)
        if word == "extract":
            if self.token.kind not in {Kind.WORD, Kind.QUOTED, Kind.STRING}:
                raise self.unexpected()
            field = Constant("string", self.advance().text, at)
            self.expect_word("from")
            arguments: tuple[Expression, ...] = (field, self.expression())
        elif word == "position":
            part = self.expression(_RANGE)
            self.expect_word("in")
            arguments = (self.expression(), part)
        else:
            arguments = (self.expression(),)
            if self.take_word("from"):
                arguments = (*arguments, self.expression())
                if self.take_word("for"):
                    arguments = (*arguments, self.expression())
            elif self.take_word("for"):
                arguments = (*arguments, Constant("number", "1", at), self.expression())
            else:
                while self.take_operator(","):
                    arguments = (*arguments, self.expression())
        self.expect_operator(")")
        return Call(word, arguments, at=at)

    def _trim(self, at: int) -> Expression:
        side = self.advance().text if self.is_word(*_TRIMS) else "both"
        characters: tuple[Expression, ...] = ()
        text = None if self.is_word("from") else self.expression()
        if self.take_word("from"):
            characters = () if text is None else (text,)
            text = self.expression()
        elif self.take_operator(","):
            characters = (self.expression(),)
        self.expect_operator(")")
        if text is None:
            raise self.unexpected()
        return Call(_TRIMS[side], (text, *characters), at=at)

    def _call(self, name: str, at: int) -> Expression:
        """Take the arguments of a function, and what may follow those of an aggregate."""
        self.expect_operator("(")
        arguments: tuple[Expression, ...] = ()
        order: tuple[SortKey, ...] = ()
        distinct = is_star = False
        if self.take_operator("*"):
            is_star = True
        elif not self.is_operator(")") or name in _WITH_ARGUMENTS:
            distinct = self.take_word("distinct")
            if not distinct:
                self.take_word("all")
            arguments = self._arguments()
            order = self.sort_keys()
        self.expect_operator(")")
        where = None
        if self.is_word("filter") and self.peek().text == "(":
            self.advance()
            self.expect_operator("(")
            self.expect_word("where")
            where = self.expression()
            self.expect_operator(")")
        if self.is_word("over") or self.is_word("within"):
            raise NotSupported("window functions are not supported", self.at + 1)
        return Call(name, arguments, is_star, distinct, order, where, at=at)

    def _arguments(self) -> tuple[Expression, ...]:
        found = []
        while True:
            if self.token.kind is Kind.WORD and self.peek().text in {"=>", ":="}:
                raise NotSupported("named arguments are not supported", self.at + 1)
            found.append(self.expression())
            if not self.take_operator(","):
                return tuple(found)

    def sort_keys(self) -> tuple[SortKey, ...]:
        """Take ORDER BY, if it is there."""
        if not self.take_word("order"):
            return ()
        self.expect_word("by")
        keys = [self._sort_key()]
        while self.take_operator(","):
            keys.append(self._sort_key())
        return tuple(keys)

    def _sort_key(self) -> SortKey:
        expression = self.expression()
        descending = False
        if self.take_word("desc"):
            descending = True
        elif self.take_word("using"):
            raise NotSupported("ORDER BY USING is not supported", self.at + 1)
        else:
            self.take_word("asc")
        nulls_first = None
        if self.take_word("nulls"):
            nulls_first = self.take_word("first")
            if not nulls_first:
                self.expect_word("last")
        return SortKey(expression, descending, nulls_first)
