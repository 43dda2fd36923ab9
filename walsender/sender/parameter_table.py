"""
The parameters that a client may set or ask for, as data.

Source of names, contexts and limits: PostgreSQL, src/backend/utils/misc/guc_tables.c;
compared with `pg_settings` of 18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.errors import (
    CannotChangeParameter,
    ConfigurationError,
    InsufficientPrivilege,
    InvalidParameterValue,
    WalsenderError,
)
from walsender.sender.encodings import encoding_name
from walsender.settings.values import Assignment, Boolean, Duration, Enumeration, Integer

if TYPE_CHECKING:
    from collections.abc import Callable

# Why a client may not change what it may not change, as the end of PostgreSQL's sentence.
NEVER: Final = ""
NOT_NOW: Final = " now"
AT_START_ONLY: Final = " without restarting the server"


def duration_text(seconds: float) -> str:
    """Return a time as SHOW prints it, in the largest unit that divides it: ``1min``, ``200ms``, ``0``."""
    milliseconds = round(seconds * 1000)
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


def _boolean(given: Assignment, _: str) -> str:
    return "on" if Boolean().parse(given) else "off"


def _integer(minimum: int, maximum: int) -> Callable[[Assignment, str], str]:
    kind = Integer(minimum, maximum)
    return lambda given, _: str(kind.parse(given))


_MILLISECONDS: Final = Duration(0, (1 << 31) - 1)


def seconds(name: str, text: str) -> float:
    """Return the time that *text*, a value of parameter *name*, is."""
    return _MILLISECONDS.parse(Assignment(name, text, "", ""))


def _time(given: Assignment, _: str) -> str:
    return duration_text(_MILLISECONDS.parse(given))


def _word(*words: str) -> Callable[[Assignment, str], str]:
    kind = Enumeration(words)
    return lambda given, _: kind.parse(given)


def _synchronous_commit(given: Assignment, _: str) -> str:
    words = Enumeration(("local", "remote_write", "remote_apply", "on", "off"))
    whole_words = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
    return whole_words.get(given.text.lower()) or words.parse(given)


def _text(given: Assignment, _: str) -> str:
    return given.text


def _encoding(given: Assignment, _: str) -> str:
    name = encoding_name(given.text)
    if name is None:
        raise given.invalid()
    return name


def _date_word(word: str) -> tuple[str, str] | None:
    """Return the style and the order of day and month that a key word of DateStyle means, or ``None``."""
    for name, meaning in (("iso", "ISO"), ("sql", "SQL"), ("german", "German")):
        if word == name:
            return meaning, ""
    if word.startswith("postgres"):
        return "Postgres", ""
    if word == "ymd":
        return "", "YMD"
    if word == "dmy" or word.startswith("euro"):
        return "", "DMY"
    if word in {"mdy", "us"} or word.startswith("noneuro"):
        return "", "MDY"
    return ("ISO", "MDY") if word == "default" else None


def _date_style(given: Assignment, current: str) -> str:
    """Source: PostgreSQL, src/backend/commands/variable.c, check_datestyle."""
    styles: set[str] = set()
    orders: set[str] = set()
    defaults = current.split(", ")
    for word in (part.strip().strip('"').lower() for part in given.text.split(",")):
        meaning = _date_word(word)
        if meaning is None:
            raise _no_date_style(given, f'Unrecognized key word: "{word}".')
        if word == "default":
            defaults = list(meaning)
            continue
        styles |= {meaning[0]} - {""}
        orders |= {meaning[1]} - {""}
    if len(styles) > 1 or len(orders) > 1:
        raise _no_date_style(given, 'Conflicting "DateStyle" specifications.')
    if styles == {"German"} and not orders:
        orders = {"DMY"}
    style, order = styles or {defaults[0]}, orders or {defaults[1]}
    return f"{style.pop()}, {order.pop()}"


def _no_date_style(given: Assignment, detail: str) -> WalsenderError:
    return InvalidParameterValue(given.invalid().message, detail=detail)


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    What is the same for a parameter on all connections.

    :ivar name: spelled as PostgreSQL spells it; any case will do.
    :ivar value: before anybody has set it; ``None``: a client may not see it.
    :ivar parse: returns the value as it is shown, of an `Assignment` and the value before; ``None``: a
        client may not set it.
    :ivar fixed: why it may not.
    :ivar is_list: it may have several values, with commas between them.
    """

    name: str
    value: str | None = ""
    parse: Callable[[Assignment, str], str] | None = None
    fixed: str = NEVER
    is_list: bool = False

    def check_settable(self) -> None:
        """
        Check that a client may set it.

        :raises CannotChangeParameter: nobody can, or not by a session.
        """
        if self.parse is None:
            raise CannotChangeParameter(f'parameter "{self.name}" cannot be changed{self.fixed}')

    def parsed(self, text: str, current: str) -> str:
        """
        Return the value that *text* is, as it is shown.

        :param current: what it was before.
        :raises InvalidParameterValue: there is no such value.
        :raises CannotChangeParameter: a client may not set it.
        """
        self.check_settable()
        assert self.parse is not None, "just checked"
        try:
            return self.parse(Assignment(self.name, text, "", ""), current)
        except ConfigurationError as error:
            raise InvalidParameterValue(error.message, hint=error.hint) from None

    def may_not_be_shown(self) -> InsufficientPrivilege:
        """Return the error for a parameter that a client may not see."""
        return SettingNotShown(
            f'permission denied to examine "{self.name}"',
            detail=(
                'Only roles with privileges of the "pg_read_all_settings" role may examine this parameter.'
            ),
        )


class SettingNotShown(InsufficientPrivilege, severity="ERROR"):
    """A parameter tells of the server's inside."""


PARAMETERS: Final = (
    # What clients set, by themselves or because somebody told them to.
    Parameter("application_name", "", _text),
    Parameter("bytea_output", "hex", _word("escape", "hex")),
    Parameter("client_encoding", "SQL_ASCII", _encoding),
    Parameter(
        "client_min_messages",
        "notice",
        _word("debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"),
    ),
    Parameter("DateStyle", "ISO, MDY", _date_style, is_list=True),
    Parameter("default_transaction_read_only", "off", _boolean),
    Parameter("extra_float_digits", "1", _integer(-15, 3)),
    Parameter("idle_in_transaction_session_timeout", "0", _time),
    Parameter("idle_session_timeout", "0", _time),
    Parameter("IntervalStyle", "postgres", _word("postgres", "postgres_verbose", "sql_standard", "iso_8601")),
    Parameter("lock_timeout", "0", _time),
    Parameter("scram_iterations", "4096", _integer(1, (1 << 31) - 1)),
    Parameter("search_path", '"$user", public', _text, is_list=True),
    Parameter("standard_conforming_strings", "on", _boolean),
    Parameter("statement_timeout", "0", _time),
    Parameter("synchronous_commit", "on", _synchronous_commit),
    Parameter("TimeZone", "UTC", _text),
    Parameter("wal_sender_timeout", "1min", _time),
    # Facts, most of them about the WAL.
    Parameter("data_directory_mode"),
    Parameter("in_hot_standby", "on"),
    Parameter("integer_datetimes", "on"),
    Parameter("is_superuser", "off"),
    Parameter("server_encoding", "SQL_ASCII"),
    Parameter("server_version"),
    Parameter("server_version_num"),
    Parameter("session_authorization"),
    Parameter("transaction_read_only", "on"),
    Parameter("wal_block_size"),
    Parameter("wal_segment_size"),
    Parameter("hot_standby", "on", fixed=AT_START_ONLY),
    Parameter("max_replication_slots", fixed=AT_START_ONLY),
    Parameter("max_wal_senders", fixed=AT_START_ONLY),
    Parameter("wal_level", "replica", fixed=AT_START_ONLY),
    # Nothing is ever removed.
    Parameter("max_slot_wal_keep_size", "-1", fixed=NOT_NOW),
    Parameter("wal_keep_size", "-1", fixed=NOT_NOW),
    # What PostgreSQL shows to its administrators only.
    Parameter("config_file", None, fixed=AT_START_ONLY),
    Parameter("data_directory", None, fixed=AT_START_ONLY),
    Parameter("hba_file", None, fixed=AT_START_ONLY),
    Parameter("ident_file", None, fixed=AT_START_ONLY),
    Parameter("primary_conninfo", None, fixed=NOT_NOW),
)
"""All there are."""
