"""
The replication grammar.

The tables hold what PostgreSQL 15, 16 and 18 answered; what is older was read in
repl_gram.y and repl_scanner.l of its version.
"""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets

from walsender.errors import CommandSyntaxError, WalsenderError
from walsender.lsn import LSN
from walsender.wire import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CreateReplicationSlot,
    DropReplicationSlot,
    IdentifySystem,
    NotACommand,
    NoticeResponse,
    ReadReplicationSlot,
    Show,
    StartReplication,
    TimelineHistory,
    UploadManifest,
    parse_command,
)

VERSIONS = (
    90300,
    90400,
    90500,
    90600,
    100000,
    110000,
    120000,
    130000,
    140000,
    150000,
    160000,
    170000,
    180000,
    190000,
)
PHYSICAL_ONLY = "cannot execute SQL commands in WAL sender for physical replication"

# Text, first version, what it is.  Unless said otherwise it is that up to 19.
COMMANDS: tuple[tuple[bytes, int, Command], ...] = (
    (b"IDENTIFY_SYSTEM", 90300, IdentifySystem()),
    (b" \t\n\r\fIDENTIFY_SYSTEM ; ", 90300, IdentifySystem()),
    (b"IDENTIFY_SYSTEM;", 90300, IdentifySystem()),
    # START_REPLICATION: what walreceivers, pg_receivewal, psycopg2 and wal-g send
    (b"START_REPLICATION 0/4000000 TIMELINE 1", 90300, StartReplication(LSN(0x4000000), 1)),
    (b"START_REPLICATION 0/4000000", 90300, StartReplication(LSN(0x4000000))),
    (b'START_REPLICATION SLOT "rw1" 0/1000000 TIMELINE 1', 90400, StartReplication(LSN(0x1000000), 1, "rw1")),
    (
        b'START_REPLICATION SLOT "n" 0/04070950 TIMELINE 1',
        90400,
        StartReplication(LSN(0x4070950), 1, "n"),
    ),
    (
        b"START_REPLICATION SLOT w PHYSICAL AB/cdef TIMELINE 4294967295",
        90400,
        StartReplication(LSN(0xAB0000CDEF), 0xFFFFFFFF, "w"),
    ),
    (b"START_REPLICATION PHYSICAL 0/0", 90400, StartReplication(LSN(0))),
    (b"START_REPLICATION 0/1TIMELINE 2", 90300, StartReplication(LSN(1), 2)),
    (b"START_REPLICATION 0/0000000001", 90300, StartReplication(LSN(1))),
    (b"START_REPLICATION FFFFFFFF/FFFFFFFF", 90300, StartReplication(LSN((1 << 64) - 1))),
    (b"START_REPLICATION SLOT physical 0/1", 90400, StartReplication(LSN(1), None, "physical")),
    (b"START_REPLICATION SLOT x LOGICAL 0/1", 90400, StartReplication(LSN(1), None, "x", logical=True)),
    (
        b"START_REPLICATION SLOT x LOGICAL 0/1 (a '1''2', \"B\", a '')",
        90400,
        StartReplication(LSN(1), None, "x", logical=True, options=(("a", "1'2"), ("B", None), ("a", ""))),
    ),
    (b"TIMELINE_HISTORY 2", 90300, TimelineHistory(2)),
    (b"TIMELINE_HISTORY 0000000000000000000000000000002", 90300, TimelineHistory(2)),
    (b"TIMELINE_HISTORY 4294967298", 90300, TimelineHistory(2)),
    (b"TIMELINE_HISTORY 99999999999999999999999", 90300, TimelineHistory(0xFFFFFFFF)),
    (b"TIMELINE_HISTORY " + b"9" * 5000, 90300, TimelineHistory(0xFFFFFFFF)),
    (b"SHOW wal_segment_size", 100000, Show("wal_segment_size")),
    (b"SHOW Wal_Segment_SIZE", 100000, Show("wal_segment_size")),
    (b'SHOW "TimeZone"', 100000, Show("TimeZone")),
    (b"SHOW ALL", 100000, Show("all")),
    (b'SHOW a . "B".c', 100000, Show("a.B.c")),
    (b"SHOW\fport", 100000, Show("port")),
    (b'CREATE_REPLICATION_SLOT "rw1" PHYSICAL', 90400, CreateReplicationSlot("rw1")),
    (b"CREATE_REPLICATION_SLOT name  PHYSICAL  ", 90400, CreateReplicationSlot("name")),
    (b'CREATE_REPLICATION_SLOT "" PHYSICAL', 90400, CreateReplicationSlot("")),
    (b"CREATE_REPLICATION_SLOT s LOGICAL p", 90400, CreateReplicationSlot("s", plugin="p")),
    (
        b"CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL",
        90600,
        CreateReplicationSlot("s", reserve_wal=True),
    ),
    (
        b"CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL RESERVE_WAL",
        100000,
        CreateReplicationSlot("s", temporary=True, reserve_wal=True),
    ),
    (
        b"CREATE_REPLICATION_SLOT s LOGICAL p NOEXPORT_SNAPSHOT",
        100000,
        CreateReplicationSlot("s", plugin="p", snapshot="nothing"),
    ),
    (
        b"CREATE_REPLICATION_SLOT s LOGICAL p EXPORT_SNAPSHOT",
        100000,
        CreateReplicationSlot("s", plugin="p", snapshot="export"),
    ),
    (
        b"CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL p TWO_PHASE USE_SNAPSHOT",
        150000,
        CreateReplicationSlot("s", temporary=True, plugin="p", snapshot="use", two_phase=True),
    ),
    (
        b'CREATE_REPLICATION_SLOT "pg_basebackup_20919" TEMPORARY PHYSICAL ( RESERVE_WAL)',
        150000,
        CreateReplicationSlot("pg_basebackup_20919", temporary=True, reserve_wal=True),
    ),
    (
        b"CREATE_REPLICATION_SLOT s PHYSICAL (reserve_wal 'Off')",
        150000,
        CreateReplicationSlot("s"),
    ),
    (
        b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL 4294967297)",
        150000,
        CreateReplicationSlot("s", reserve_wal=True),
    ),
    (
        b"CREATE_REPLICATION_SLOT s LOGICAL p (SNAPSHOT 'use', two_phase ON)",
        150000,
        CreateReplicationSlot("s", plugin="p", snapshot="use", two_phase=True),
    ),
    (
        b"CREATE_REPLICATION_SLOT s LOGICAL p (FAILOVER)",
        170000,
        CreateReplicationSlot("s", plugin="p", failover=True),
    ),
    (b'DROP_REPLICATION_SLOT "rw1"', 90400, DropReplicationSlot("rw1")),
    (b"DROP_REPLICATION_SLOT rw1 WAIT", 110000, DropReplicationSlot("rw1", wait=True)),
    (b"DROP_REPLICATION_SLOT \xc3\x84B$1", 90400, DropReplicationSlot("Äb$1")),
    (b"DROP_REPLICATION_SLOT \xff", 90400, DropReplicationSlot("\udcff")),
    (b"READ_REPLICATION_SLOT rw1", 150000, ReadReplicationSlot("rw1")),
    (b"READ_REPLICATION_SLOT a.b", 150000, ReadReplicationSlot("a.b")),
    (b"ALTER_REPLICATION_SLOT s (FAILOVER)", 170000, AlterReplicationSlot("s", failover=True)),
    (b"ALTER_REPLICATION_SLOT s (FAILOVER 0)", 170000, AlterReplicationSlot("s", failover=False)),
    (
        b"ALTER_REPLICATION_SLOT s ( TWO_PHASE false,FAILOVER)",
        180000,
        AlterReplicationSlot("s", failover=True, two_phase=False),
    ),
    (b"BASE_BACKUP", 90300, BaseBackup()),
    (
        # pg_basebackup 18, two blanks after commas and all
        (
            b"BASE_BACKUP ( LABEL 'pg_basebackup base backup',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,"
            b"  MANIFEST 'yes',  TARGET 'client')"
        ),
        150000,
        BaseBackup(
            (
                ("label", "pg_basebackup base backup"),
                ("progress", True),
                ("checkpoint", "fast"),
                ("wait", False),
                ("manifest", "yes"),
                ("target", "client"),
            )
        ),
    ),
    (
        b"BASE_BACKUP (MAX_RATE 102400, COMPRESSION gzip, COMPRESSION_DETAIL 1, WAL, LABEL 4294967295)",
        150000,
        BaseBackup(
            (
                ("max_rate", 102400),
                ("compression", "gzip"),
                ("compression_detail", "1"),
                ("wal", True),
                ("label", "-1"),
            )
        ),
    ),
    (b"BASE_BACKUP (INCREMENTAL)", 170000, BaseBackup((("incremental", True),))),
    (b"UPLOAD_MANIFEST", 170000, UploadManifest()),
)

# Syntax errors in 15 and later; then, with their messages, all that are 42601.
SYNTACTICALLY_WRONG = (
    b"IDENTIFY_SYSTEM;;",
    b"IDENTIFY_SYSTEM foo",
    b"IDENTIFY_SYSTEM foo 'abc",  # the first mistake is reported
    b"IDENTIFY_SYSTEM -- x",
    b"IDENTIFY_SYSTEM /* x */",
    b"IDENTIFY_SYSTEM''",
    b"IDENTIFY_SYSTEM \xff",
    b"IDENTIFY_SYSTEM\0",
    b"START_REPLICATION",
    b"START_REPLICATION 0",
    b"START_REPLICATION 0/",
    b"START_REPLICATION 0/ 1",
    b"START_REPLICATION 0 /1",
    b"START_REPLICATION /1",
    b"START_REPLICATION 0/g",
    b"START_REPLICATION 0/1g",
    b"START_REPLICATION x/1",
    b"START_REPLICATION -1/1",
    b"START_REPLICATION 0x1/1",
    b"START_REPLICATION '0/1'",
    b"START_REPLICATION 123456789/1",
    b"START_REPLICATION 0/123456789",
    b"START_REPLICATION PHYSICAL0/1",
    b"START_REPLICATION 0/1 TIMELINE",
    b"START_REPLICATION 0/1 TIMELINE -1",
    b"START_REPLICATION 0/1 TIMELINE1",
    b"START_REPLICATION 0/1 TIMELINE x",
    b"START_REPLICATION 0/1 PHYSICAL",
    b"START_REPLICATION 0/1 timeline 1",
    b"START_REPLICATION SLOT 0/1",
    b"START_REPLICATION SLOT 's' 0/1",
    b"START_REPLICATION SLOT PHYSICAL 0/1",
    b"START_REPLICATION SLOT a SLOT b 0/1",
    b"START_REPLICATION LOGICAL 0/1",
    b"START_REPLICATION SLOT x LOGICAL 0/1 ()",
    b"START_REPLICATION SLOT x LOGICAL 0/1 (a 1)",
    b"START_REPLICATION SLOT x LOGICAL 0/1 (a",
    b"START_REPLICATION SLOT x LOGICAL 0/1 TIMELINE 1",
    b"TIMELINE_HISTORY",
    b"TIMELINE_HISTORY x",
    b"SHOW",
    b"SHOW(",
    b"SHOW SHOW",
    b"SHOW a.",
    b"SHOW 'port'",
    b"CREATE_REPLICATION_SLOT 's' PHYSICAL",
    b"CREATE_REPLICATION_SLOT s",
    b"CREATE_REPLICATION_SLOT PHYSICAL PHYSICAL",
    b"CREATE_REPLICATION_SLOT s LOGICAL",
    b"CREATE_REPLICATION_SLOT s PHYSICAL ()",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL a b)",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL SHOW)",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL,)",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (1)",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (READ_REPLICATION_SLOT)",
    b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL) RESERVE_WAL",
    b"DROP_REPLICATION_SLOT",
    b"DROP_REPLICATION_SLOT 'nope'",
    b"DROP_REPLICATION_SLOT $1",
    b"DROP_REPLICATION_SLOT s WAIT WAIT",
    b"BASE_BACKUP LABEL 'x'",
    b"BASE_BACKUP ()",
    b"BASE_BACKUP (",
)
SYNTAX_ERRORS = (
    *((text, "syntax error") for text in SYNTACTICALLY_WRONG),
    (b"IDENTIFY_SYSTEM '", "unterminated quoted string"),
    (b"SHOW 'port''", "unterminated quoted string"),
    (b'SHOW "port', "unterminated quoted string"),
    (b"'abc", "unterminated quoted string"),
    (b'"abc', "unterminated quoted string"),
    (b"TIMELINE_HISTORY 0", "invalid timeline 0"),
    (b"TIMELINE_HISTORY 0 'abc", "invalid timeline 0"),
    (b"TIMELINE_HISTORY 4294967296", "invalid timeline 0"),
    (b"START_REPLICATION 0/1 TIMELINE 0 foo", "invalid timeline 0"),
)

# Text, SQLSTATE, message in 18; each is a command but for its options.
OPTION_ERRORS = (
    (b"PHYSICAL (reserve_wal 2)", "42601", "reserve_wal requires a Boolean value"),
    (b"PHYSICAL (reserve_wal 'yes')", "42601", "reserve_wal requires a Boolean value"),
    (b"PHYSICAL (reserve_wal t)", "42601", "reserve_wal requires a Boolean value"),
    (b"PHYSICAL (SNAPSHOT nothing)", "42601", "conflicting or redundant options"),
    (b"PHYSICAL (two_phase)", "42601", "conflicting or redundant options"),
    (b"PHYSICAL (FAILOVER)", "42601", "conflicting or redundant options"),
    (b"PHYSICAL RESERVE_WAL RESERVE_WAL", "42601", "conflicting or redundant options"),
    (b"PHYSICAL USE_SNAPSHOT", "42601", "conflicting or redundant options"),
    (b"PHYSICAL (RESERVE_WAL, reserve_wal foo)", "42601", "conflicting or redundant options"),
    (b"PHYSICAL (foo, foo)", "XX000", "unrecognized option: foo"),
    (b"PHYSICAL (SHOW)", "XX000", "unrecognized option: show"),
    (b"PHYSICAL (UPLOAD_MANIFEST 'x')", "XX000", "unrecognized option: upload_manifest"),
    (b"PHYSICAL (foo, reserve_wal foo)", "XX000", "unrecognized option: foo"),
    (b"PHYSICAL (reserve_wal foo, foo)", "42601", "reserve_wal requires a Boolean value"),
    (b"LOGICAL x (RESERVE_WAL)", "42601", "conflicting or redundant options"),
    (b"LOGICAL x RESERVE_WAL", "42601", "conflicting or redundant options"),
    (b"LOGICAL x (SNAPSHOT)", "42601", "snapshot requires a parameter"),
    (
        b"LOGICAL x (SNAPSHOT foo)",
        "22023",
        'unrecognized value for CREATE_REPLICATION_SLOT option "snapshot": "foo"',
    ),
    (
        b'LOGICAL x (SNAPSHOT "Use")',
        "22023",
        'unrecognized value for CREATE_REPLICATION_SLOT option "snapshot": "Use"',
    ),
    (
        b"LOGICAL x (SNAPSHOT 12)",
        "22023",
        'unrecognized value for CREATE_REPLICATION_SLOT option "snapshot": "12"',
    ),
)
OTHER_OPTION_ERRORS = (
    (b"ALTER_REPLICATION_SLOT s (foo)", "XX000", "unrecognized option: foo"),
    (b"ALTER_REPLICATION_SLOT s (TWO_PHASE, TWO_PHASE)", "42601", "conflicting or redundant options"),
    (b"ALTER_REPLICATION_SLOT s (FAILOVER foo)", "42601", "failover requires a Boolean value"),
    (b"ALTER_REPLICATION_SLOT s", "42601", "syntax error"),
    (b"BASE_BACKUP (foo)", "42601", 'unrecognized base backup option: "foo"'),
    (b"BASE_BACKUP (LABEL 'a', LABEL 'b')", "42601", 'duplicate option "label"'),
    (b"BASE_BACKUP (LABEL)", "42601", "label requires a parameter"),
    (b"BASE_BACKUP (WAL foo, foo)", "42601", "wal requires a Boolean value"),
    (b"BASE_BACKUP (MAX_RATE 'x')", "42601", "max_rate requires a numeric value"),
    (b"BASE_BACKUP (FAST)", "42601", 'unrecognized base backup option: "fast"'),
)

words = st.one_of(
    st.sampled_from(
        (
            *(b"IDENTIFY_SYSTEM", b"START_REPLICATION", b"TIMELINE_HISTORY", b"SHOW", b"BASE_BACKUP"),
            *(b"CREATE_REPLICATION_SLOT", b"DROP_REPLICATION_SLOT", b"READ_REPLICATION_SLOT"),
            *(b"ALTER_REPLICATION_SLOT", b"UPLOAD_MANIFEST", b"SLOT", b"PHYSICAL", b"LOGICAL", b"TIMELINE"),
            *(b"TEMPORARY", b"RESERVE_WAL", b"USE_SNAPSHOT", b"TWO_PHASE", b"WAIT", b"LABEL", b"FAST"),
            *(b"failover", b"snapshot", b"max_rate", b"manifest", b"true", b"'use'", b"'it''s'", b'"a""b"'),
            *(b"0/1", b"F/F", b"0", b"1", b"7", b"(", b")", b",", b";", b".", b"'", b'"', b"--", b"\xff\xfe"),
        )
    ),
    octets(max_size=5),
)


class CommandTests(SynchronousTestCase):
    """What is a command."""

    def test_commandsSinceTheirVersion(self) -> None:
        """Each is read by its first version and by all later ones."""
        for text, since, command in COMMANDS:
            for version in VERSIONS:
                if version >= since:
                    self.assertEqual(parse_command(text, version), command, (text, version))

    def test_noCommandsBeforeTheirVersion(self) -> None:
        """Before that, each is an error."""
        for text, since, _ in COMMANDS:
            for version in VERSIONS:
                if version < since:
                    with self.assertRaises(WalsenderError, msg=f"{text!r} {version}"):
                        parse_command(text, version)

    def test_keywordsOfLaterVersionsAreNames(self) -> None:
        """TEMPORARY was a word like any other before 10."""
        self.assertEqual(
            parse_command(b"DROP_REPLICATION_SLOT TEMPORARY", 90600), DropReplicationSlot("temporary")
        )
        self.assertRaises(CommandSyntaxError, parse_command, b"DROP_REPLICATION_SLOT TEMPORARY", 100000)

    def test_keywordsOfEarlierVersionsAreNames(self) -> None:
        """The words of the old BASE_BACKUP are names again since 15."""
        for word in (
            *("LABEL", "PROGRESS", "FAST", "WAL", "NOWAIT", "MAX_RATE", "TABLESPACE_MAP"),
            *("NOVERIFY_CHECKSUMS", "MANIFEST", "MANIFEST_CHECKSUMS"),
        ):
            text = b"DROP_REPLICATION_SLOT " + word.encode()
            self.assertEqual(parse_command(text, 150000), DropReplicationSlot(word.lower()))
            self.assertRaises(CommandSyntaxError, parse_command, text, 140000)

    def test_baseBackupBefore15(self) -> None:
        """The old spelling, of any order, gives the options of today."""
        self.assertEqual(
            parse_command(
                b"BASE_BACKUP NOVERIFY_CHECKSUMS LABEL 'x' PROGRESS FAST NOWAIT WAL MAX_RATE 32"
                b" TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'none'",
                140000,
            ),
            BaseBackup(
                (
                    ("verify_checksums", False),
                    ("label", "x"),
                    ("progress", True),
                    ("checkpoint", "fast"),
                    ("wait", False),
                    ("wal", True),
                    ("max_rate", 32),
                    ("tablespace_map", True),
                    ("manifest", "yes"),
                    ("manifest_checksums", "none"),
                )
            ),
        )

    def test_baseBackupBefore15Errors(self) -> None:
        """A duplicate is named as it was written; the new spelling is a syntax error."""
        for text, message in (
            (b"BASE_BACKUP FAST FAST", 'duplicate option "fast"'),
            (b"BASE_BACKUP LABEL", "syntax error"),
            (b"BASE_BACKUP LABEL x", "syntax error"),
            (b"BASE_BACKUP MAX_RATE 'x'", "syntax error"),
            (b"BASE_BACKUP (LABEL 'x')", "syntax error"),
        ):
            error = self.assertRaises(CommandSyntaxError, parse_command, text, 140000)
            self.assertEqual(error.message, message)

    def test_doubledQuotesInNames(self) -> None:
        """Understood from 19 on; before, the name ends there."""
        self.assertEqual(parse_command(b'DROP_REPLICATION_SLOT "a""b"', 190000), DropReplicationSlot('a"b'))
        self.assertRaises(CommandSyntaxError, parse_command, b'DROP_REPLICATION_SLOT "a""b"', 180000)

    def test_verticalTab(self) -> None:
        """A blank from 17 on."""
        self.assertEqual(parse_command(b"\vSHOW\vport", 170000), Show("port"))
        self.assertRaises(NotACommand, parse_command, b"\vSHOW port", 160000)
        self.assertRaises(CommandSyntaxError, parse_command, b"SHOW \vport", 160000)

    def test_longNamesAreCutWithANotice(self) -> None:
        """To 63 bytes, folded first; the notice shows both."""
        for name, folded in ((b"A" * 70, "a" * 70), (b'"' + b"A" * 70 + b'"', "A" * 70)):
            command = parse_command(b"DROP_REPLICATION_SLOT " + name, 180000)
            self.assertEqual(
                command,
                DropReplicationSlot(
                    folded[:63],
                    notices=(
                        NoticeResponse(
                            "NOTICE",
                            "42622",
                            f'identifier "{folded}" will be truncated to "{folded[:63]}"',
                        ),
                    ),
                ),
            )

    def test_everyCommandHasItsKeyword(self) -> None:
        """The first word of what was read."""
        for text, _, command in COMMANDS:
            self.assertTrue(text.strip().startswith(command.keyword.encode()), text)


class CommandErrorTests(SynchronousTestCase):
    """What is none."""

    def assertError(self, text: bytes, version: int, sqlstate: str, message: str) -> None:
        """Check an error and that it leaves the session intact."""
        error = self.assertRaises(WalsenderError, parse_command, text, version)
        self.assertEqual(
            (error.severity, error.sqlstate, error.message), ("ERROR", sqlstate, message), (text, version)
        )

    def test_whatDoesNotBeginWithACommand(self) -> None:
        """Is SQL, and refused as such; by each version in its way."""
        for text in (
            *(b"", b";", b"show x", b"SELECT 1", b"PHYSICAL", b"identify_system", b"IDENTIFY_SYSTEMX"),
            *(
                b"-- x\nIDENTIFY_SYSTEM",
                b"/**/IDENTIFY_SYSTEM",
                b"1/2",
                b"12",
                b".",
                b"(",
                b"\xff",
                b"''",
                b"123456789/1",
            ),
        ):
            for version in VERSIONS:
                if version >= 140000:
                    self.assertError(text, version, "0A000", PHYSICAL_ONLY)
                elif version >= 110000:
                    self.assertError(text, version, "XX000", PHYSICAL_ONLY)
                elif version >= 100000:
                    self.assertError(text, version, "XX000", "not connected to database")
                else:
                    self.assertError(text, version, "42601", "syntax error")

    def test_commandsOfLaterVersionsAreSql(self) -> None:
        """A server does not know what it will learn."""
        self.assertError(b"UPLOAD_MANIFEST", 160000, "0A000", PHYSICAL_ONLY)
        self.assertError(b"ALTER_REPLICATION_SLOT nope", 160000, "0A000", PHYSICAL_ONLY)
        self.assertError(b"READ_REPLICATION_SLOT x", 140000, "0A000", PHYSICAL_ONLY)
        self.assertError(b"SHOW x", 90600, "42601", "syntax error")

    def test_syntaxErrors(self) -> None:
        """42601, in 15 and later."""
        for text, message in SYNTAX_ERRORS:
            for version in (150000, 160000, 180000, 190000):
                self.assertError(text, version, "42601", message)

    def test_slotOptions(self) -> None:
        """Judged one by one, in the order in which they are written."""
        for text, sqlstate, message in OPTION_ERRORS:
            self.assertError(b"CREATE_REPLICATION_SLOT s TEMPORARY " + text, 180000, sqlstate, message)

    def test_otherOptions(self) -> None:
        """Of ALTER_REPLICATION_SLOT and BASE_BACKUP."""
        for text, sqlstate, message in OTHER_OPTION_ERRORS:
            self.assertError(text, 180000, sqlstate, message)

    def test_optionsOfLaterVersions(self) -> None:
        """Are unknown before."""
        self.assertError(
            b"CREATE_REPLICATION_SLOT s PHYSICAL (FAILOVER)", 160000, "XX000", "unrecognized option: failover"
        )
        self.assertError(
            b"ALTER_REPLICATION_SLOT s (TWO_PHASE)", 170000, "XX000", "unrecognized option: two_phase"
        )
        self.assertError(
            b"BASE_BACKUP (INCREMENTAL)", 160000, "42601", 'unrecognized base backup option: "incremental"'
        )

    def test_optionsAreJudgedLast(self) -> None:
        """A syntax error behind a wrong option is reported before it."""
        self.assertError(b"CREATE_REPLICATION_SLOT s PHYSICAL (foo) bar", 180000, "42601", "syntax error")
        self.assertError(b"BASE_BACKUP (foo);;", 180000, "42601", "syntax error")

    def test_tooManyWords(self) -> None:
        """A megabyte of options is refused before it is kept."""
        text = b"START_REPLICATION SLOT s LOGICAL 0/1 (" + b"a," * 500_000 + b"a)"
        self.assertError(text, 180000, "42601", "syntax error")

    def test_longWordsTakeLinearTime(self) -> None:
        """A megabyte of what could be scanned in two ways is scanned once."""
        for word in (b"a", b"0", b"''", b'""', b"'", b'"', b"A/", b" ", b"\v"):
            for version in (160000, 190000):
                with contextlib.suppress(WalsenderError):
                    parse_command(b"SHOW " + word * (1_000_000 // len(word)), version)

    @settings(deadline=None, max_examples=300)
    @given(st.lists(words, max_size=14), st.sampled_from((b" ", b"")), st.sampled_from(VERSIONS))
    def test_anyWordsGiveACommandOrATypedError(self, text: list[bytes], blank: bytes, version: int) -> None:
        """Token soup never gives another exception, and no error that would end the session."""
        try:
            command = parse_command(blank.join(text), version)
        except WalsenderError as error:
            self.assertEqual(error.severity, "ERROR")
        else:
            self.assertIn(command.keyword.encode(), blank.join(text))

    @given(octets(max_size=60), st.sampled_from(VERSIONS))
    def test_anyBytesGiveACommandOrATypedError(self, text: bytes, version: int) -> None:
        """Nor do any other bytes."""
        with contextlib.suppress(WalsenderError):
            parse_command(text, version)


@st.composite
def spelled(draw: st.DrawFn) -> tuple[bytes, Command]:
    """Return a command and one way to spell it."""
    name = draw(st.text(alphabet="abcxyz0129_", min_size=1, max_size=63))
    quoted = b'"' + name.encode() + b'"'
    start = LSN(draw(st.integers(0, (1 << 64) - 1)))
    position = draw(st.sampled_from(("{:X}/{:X}", "{:x}/{:08x}", "{:08X}/{:08X}")))
    timeline = draw(st.none() | st.integers(1, (1 << 32) - 1))
    blank = draw(st.text(alphabet=" \t\r\n\f", min_size=1, max_size=3)).encode()
    kind = draw(st.integers(0, 3))
    if kind == 0:
        slot = draw(st.booleans())
        parts = [b"START_REPLICATION"]
        parts += [b"SLOT", quoted] if slot else []
        parts += [b"PHYSICAL"] if draw(st.booleans()) else []
        parts.append(position.format(start.log_id, start.log_offset).encode())
        parts += [b"TIMELINE", b"%d" % timeline] if timeline else []
        return blank.join(parts), StartReplication(start, timeline, name if slot else None)
    if kind == 1:
        temporary, reserve = draw(st.booleans()), draw(st.booleans())
        parts = [b"CREATE_REPLICATION_SLOT", quoted]
        parts += [b"TEMPORARY"] if temporary else []
        parts.append(b"PHYSICAL")
        parts += (
            [draw(st.sampled_from((b"RESERVE_WAL", b"(reserve_wal)", b"(RESERVE_WAL 'on' )")))]
            if reserve
            else []
        )
        return blank.join(parts), CreateReplicationSlot(name, temporary, reserve_wal=reserve)
    if kind == 2:
        wait = draw(st.booleans())
        return blank.join(
            [b"DROP_REPLICATION_SLOT", quoted, *([b"WAIT"] if wait else [])]
        ), DropReplicationSlot(name, wait)
    return blank.join((b"SHOW", quoted, b";")), Show(name)


class SpellingTests(SynchronousTestCase):
    """The same command in different clothes."""

    @given(spelled())
    def test_everySpellingIsRead(self, pair: tuple[bytes, Command]) -> None:
        """Blanks, quotes, widths and option forms make no difference."""
        text, command = pair
        self.assertEqual(parse_command(text, 180000), command)
