"""The settings of one start, collected from command line, configuration file and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from walsender.errors import ConfigurationError

from .file import read_file
from .table import SETTINGS
from .values import Assignment, StringList, complaint, nearest, quoted_element

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from walsender.lsn import LSN

    from .setting import Setting

CONFIG_FILE: Final = "config_file"
"""The one option that is no setting."""

_BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What was set for this start: checked, typed, and unchangeable.

    Times are seconds, paths are absolute.  Two are equal if all values are,
    wherever these come from.

    :ivar wal_directory: where the WAL segments are.
    :ivar listen: endpoint strings, at least one.
    :ivar http: endpoint string of metrics and health; empty: there is none.
    :ivar cluster_name: in the process title and for the upstream; empty: none.
    :ivar update_process_title: show there what is done.
    :ivar primary_conninfo: of the upstream; empty: there is none, and others fill the directory.
    :ivar primary_slot_name: on the upstream; empty: none.
    :ivar create_primary_slot: make that slot if it is missing.
    :ivar wal_receiver_timeout: seconds; 0 is none.
    :ivar wal_receiver_status_interval: seconds; 0: tell of progress only.
    :ivar wal_retrieve_retry_interval: seconds.
    :ivar restore_command: shell command that gets a file which is not in the directory; empty: none.
    :ivar hot_standby_feedback: tell the upstream what the standbys need.
    :ivar wal_keep_size: MB; -1: keep all.
    :ivar max_slot_wal_keep_size: MB; -1: no limit.
    :ivar max_wal_directory_size: MB; -1: no limit.
    :ivar max_wal_senders: size of the slot table.
    :ivar max_replication_slots: of both kinds together.
    :ivar wal_sender_timeout: seconds; 0 is none.
    :ivar wal_sender_shutdown_timeout: seconds a drain may wait; 0 is not at all.
    :ivar wal_sender_delay: seconds between two looks at the directory.
    :ivar authentication_timeout: seconds from connect to being let in.
    :ivar hba_file: rules for who may come in; empty: this machine only.
    :ivar ident_file: which system users may be which role; empty: there are no maps.
    :ivar auth_file: passwords; empty: nobody has one.
    :ivar ssl: clients may encrypt.
    :ivar ssl_cert_file: our certificate; as the other files empty: there is none.
    :ivar ssl_key_file: its key.
    :ivar ssl_ca_file: who may have signed clients' certificates.
    :ivar ssl_crl_file: which of those certificates do not count any more.
    :ivar ssl_min_protocol_version: ``TLSv1`` to ``TLSv1.3``.
    :ivar state_directory: where slots and the lock file are.
    :ivar fsync: flush WAL before sending it.
    :ivar verify_wal: from where on WAL is checked before the start; 0: the earliest place, ``None``: nowhere.
    :ivar protocol_dialect: ``auto`` or ``8.5``.
    :ivar sendfile: let the kernel move WAL where it can.
    :ivar cold_read_rate: kB per second; 0: no limit.
    :ivar inotify: let the kernel tell of new WAL.
    :ivar log_destination: ``stderr`` or ``jsonlog``.
    :ivar log_line_prefix: with ``%``-escapes.
    :ivar log_min_messages: one of PostgreSQL's levels, in small letters; likewise *log_min_error_statement*.
    :ivar log_connections: words, of ``receipt``, ``authentication`` and ``authorization``.
    :ivar log_disconnections: log how long each session was.
    :ivar log_replication_commands: log each.
    :ivar config_file: what was read; empty: none.
    :ivar sources: for each setting where its value comes from, as messages name it: ``default``,
        ``file "…" line 3``, ``command line option --listen``.
    """

    wal_directory: str
    listen: tuple[str, ...]
    http: str
    cluster_name: str
    update_process_title: bool
    primary_conninfo: str
    primary_slot_name: str
    create_primary_slot: bool
    wal_receiver_timeout: float
    wal_receiver_status_interval: float
    wal_retrieve_retry_interval: float
    restore_command: str
    hot_standby_feedback: bool
    wal_keep_size: int
    max_slot_wal_keep_size: int
    max_wal_directory_size: int
    max_wal_senders: int
    max_replication_slots: int
    wal_sender_timeout: float
    wal_sender_shutdown_timeout: float
    wal_sender_delay: float
    authentication_timeout: float
    hba_file: str
    ident_file: str
    auth_file: str
    ssl: bool
    ssl_cert_file: str
    ssl_key_file: str
    ssl_ca_file: str
    ssl_crl_file: str
    ssl_min_protocol_version: str
    state_directory: str
    fsync: bool
    verify_wal: LSN | None
    protocol_dialect: str
    sendfile: bool
    cold_read_rate: int
    inotify: bool
    log_destination: str
    log_line_prefix: str
    log_min_messages: str
    log_min_error_statement: str
    log_connections: tuple[str, ...]
    log_disconnections: bool
    log_replication_commands: bool
    config_file: str = field(compare=False)
    sources: Mapping[str, str] = field(compare=False)

    @classmethod
    def load(
        cls,
        command_line: Iterable[tuple[str, str]],
        config_file: str | None = None,
        assignments: Iterable[str] = (),
        directory: str | None = None,
    ) -> Settings:
        """
        Return the settings that these sources make together.

        As in PostgreSQL a wrong value is refused even if a better source
        overrides it; only inside a file it is forgotten when the name comes again.

        :param command_line: pairs of option (``wal-directory`` or ``wal_directory``) and value in
            the order given.  ``config-file`` may be among them.  A relative path is relative to
            *directory*; one in a file, to that file's directory.
        :param config_file: the configuration file, if there is one.
        :param assignments: the arguments of ``-c``, ``name=value``; they count as given after
            *command_line*.
        :param directory: by default the working directory.  A reload must say where the program
            was started, since twistd may have left that place.
        :raises InvalidSettings: something is wrong.
        :raises ConfigurationError: the file cannot be read, or a line of it not be understood.
        """
        here = _working_directory() if directory is None else directory
        options_given: list[tuple[str, str]] = []
        for option, text in command_line:
            if _canonical(option) == CONFIG_FILE:
                config_file = text
            else:
                options_given.append((option, text))
        given = _Given(here, "" if config_file is None else str(Path(here, config_file)))
        if config_file is not None:
            source = "command line option --config-file"
            if not config_file or "\0" in config_file:
                raise complaint(f'empty configuration file name: "{config_file}"', source)
            given.assign_last(read_file(given.config_file, source))
        given.assign(_from_options(options_given, here))
        given.assign(_from_assignments(assignments, here))
        return given.settings()

    def changed(self, other: Settings) -> tuple[str, ...]:
        """Return the names of the settings that have another value in *other*, in the table's order."""
        return tuple(
            setting.name
            for setting in SETTINGS
            if getattr(self, setting.name) != getattr(other, setting.name)
        )


class InvalidSettings(ConfigurationError):
    """
    What is wrong with settings; the message is the first of it, in one line that says where.

    :ivar problems: all that is wrong, each in one line.
    :ivar unaffected: gives, of the settings that hold, those that would hold if what is wrong stayed as
        it is; ``None``: a name is wrong, and nobody knows what else is meant otherwise.
    """

    def __init__(
        self, problems: Sequence[str], unaffected: Callable[[Settings], Settings] | None = None
    ) -> None:
        super().__init__(problems[0])
        self.problems = tuple(problems)
        self.unaffected = unaffected


class _Given:
    """
    What has been given so far; the last one wins.

    :param directory: what defaults are relative to.
    """

    def __init__(self, directory: str, config_file: str) -> None:
        self._directory = directory
        self.config_file = config_file
        self._values: dict[str, object] = {}
        self._sources: dict[str, str] = {}
        self._unknown: list[str] = []
        self._wrong: dict[str, list[str]] = {}  # by setting

    def assign_last(self, given: Iterable[Assignment]) -> None:
        """Take what a file assigns, of several lines for a name the last."""
        last = {}
        for one in given:
            if (setting := self._setting(one)) is not None:
                last[setting.name] = one
        self.assign(last.values())

    def assign(self, given: Iterable[Assignment]) -> None:
        """Take what is given, and what is wrong with it."""
        for one in given:
            setting = self._setting(one)
            if setting is None:
                continue
            try:
                self._values[setting.name] = setting.kind.parse(one)
            except ConfigurationError as error:
                told = complaint(error.message, one.source, error.hint).message
                self._wrong.setdefault(setting.name, []).append(told)
            else:
                self._sources[setting.name] = one.source

    def _setting(self, given: Assignment) -> Setting | None:
        try:
            return _setting(given)
        except ConfigurationError as error:
            self._unknown.append(error.message)
            return None

    def settings(self) -> Settings:
        """
        Return what all of it means.

        :raises InvalidSettings: something is wrong.
        """
        wrong = [problem for problems in self._wrong.values() for problem in problems]
        if self._unknown:
            raise InvalidSettings([*self._unknown, *wrong])
        if wrong:
            raise InvalidSettings(wrong, self._unaffected)
        return self._complete()

    def _unaffected(self, current: Settings) -> Settings:
        for name in self._wrong:
            self._values[name] = getattr(current, name)
            self._sources[name] = current.sources[name]
        return self._complete()

    def _complete(self) -> Settings:
        values, sources = dict(self._values), dict(self._sources)
        for setting in SETTINGS:
            if setting.name not in values:
                values[setting.name] = _default(setting, values, self._directory)
                sources[setting.name] = "default"
        fields: dict[str, Any] = {**values, "sources": MappingProxyType(sources)}
        return Settings(config_file=self.config_file, **fields)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise complaint(f"could not identify current directory: {error.strerror}", None) from error


def _canonical(name: str) -> str:
    return name.replace("-", "_").lower()


def _setting(given: Assignment) -> Setting:
    """Return the row of the table that *given* means."""
    setting = _BY_NAME.get(given.name.lower())
    if setting is None:
        raise complaint(
            f'unrecognized configuration parameter "{given.name}"',
            given.source,
            nearest(given.name.lower(), _BY_NAME),
        )
    return setting


def _from_options(pairs: Iterable[tuple[str, str]], directory: str) -> Iterable[Assignment]:
    """Return what the options assign; the values of a repeated one make up one list."""
    lists: dict[str, Assignment] = {}
    for option, text in pairs:
        name = _canonical(option)
        given = Assignment(name, text, f"command line option --{name.replace('_', '-')}", directory)
        if isinstance(_setting(given).kind, StringList):
            element = quoted_element(text)
            before = lists.get(name)
            lists[name] = Assignment(
                name, f"{before.text},{element}" if before else element, given.source, directory
            )
        else:
            yield given
    yield from lists.values()


def _from_assignments(assignments: Iterable[str], directory: str) -> Iterable[Assignment]:
    for argument in assignments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise complaint(f"-c {argument} requires a value", None)
        yield Assignment(_canonical(name), text, f"command line option -c {_canonical(name)}", directory)


def _default(setting: Setting, values: Mapping[str, object], directory: str) -> object:
    if setting.derive is not None:
        return setting.derive(values)
    if setting.default is None:
        option = f"--{setting.name.replace('_', '-')}"
        short = f" (-{setting.short})" if setting.short else ""
        raise complaint(
            f'parameter "{setting.name}" is not set',
            None,
            f"Give {option}{short} on the command line or {setting.name} in the configuration file.",
        )
    return setting.kind.parse(Assignment(setting.name, setting.default, "default", directory))
