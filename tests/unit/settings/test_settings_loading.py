"""Settings from command line, file and defaults, and what goes wrong on the way."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.settings import SETTINGS, Settings, options

DIRECTORY = ("wal-directory", "/wal")


class LoadingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory with an empty configuration file."""
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = Path(self.directory, "walsender.conf")
        self.path.touch()

    def load(self, *pairs: tuple[str, str], file: str | None = None, c: tuple[str, ...] = ()) -> Settings:
        """Return the settings of these options, this content of a file and these arguments of -c."""
        if file is not None:
            self.path.write_text(file)
        return Settings.load(pairs, None if file is None else str(self.path), c)

    def refusal(self, *pairs: tuple[str, str], **others: Any) -> str:
        """Return the message with which `load` refuses; the file's directory is shortened to D."""
        error = self.assertRaises(ConfigurationError, self.load, *pairs, **others)
        return str(error).replace(self.directory, "D")


class DefaultsTests(LoadingTestCase):
    def test_defaults(self) -> None:
        """Given the directory alone, everything has the default of the design."""
        self.assertEqual(
            self.load(DIRECTORY),
            Settings(
                wal_directory="/wal",
                listen=("tcp:5433:interface=127.0.0.1",),
                http="",
                primary_conninfo="",
                cluster_name="",
                update_process_title=True,
                primary_slot_name="",
                create_primary_slot=False,
                wal_receiver_timeout=60.0,
                wal_receiver_status_interval=10.0,
                wal_retrieve_retry_interval=5.0,
                restore_command="",
                hot_standby_feedback=False,
                wal_keep_size=-1,
                max_slot_wal_keep_size=-1,
                max_wal_directory_size=-1,
                max_wal_senders=100,
                max_replication_slots=100,
                wal_sender_timeout=60.0,
                wal_sender_shutdown_timeout=60.0,
                wal_sender_delay=0.2,
                authentication_timeout=60.0,
                hba_file="",
                ident_file="",
                auth_file="",
                ssl=False,
                ssl_cert_file="",
                ssl_key_file="",
                ssl_ca_file="",
                ssl_crl_file="",
                ssl_min_protocol_version="TLSv1.2",
                state_directory="/wal/walsender_state",
                fsync=True,
                verify_wal=None,
                protocol_dialect="auto",
                sendfile=True,
                cold_read_rate=32 << 10,
                inotify=True,
                log_destination="stderr",
                log_line_prefix="%m [%p] %q%u@%h %a ",
                log_min_messages="warning",
                log_min_error_statement="error",
                log_connections=(),
                log_disconnections=False,
                log_replication_commands=False,
                config_file="",
                sources={},
            ),
        )

    def test_directoryIsRequired(self) -> None:
        """Without a directory there is no start, and the message says how to give one."""
        self.assertEqual(
            self.refusal(),
            'parameter "wal_directory" is not set. Give --wal-directory (-D) on the command line'
            " or wal_directory in the configuration file.",
        )

    def test_shutdownTimeoutFollowsTheTimeout(self) -> None:
        """A drain waits as long as a silent client may, and 60 seconds if that is without limit."""
        for timeout, expected in [("90s", 90.0), ("0", 60.0)]:
            loaded = self.load(DIRECTORY, ("wal-sender-timeout", timeout))
            self.assertEqual(loaded.wal_sender_shutdown_timeout, expected)

    def test_shutdownTimeoutOfItsOwn(self) -> None:
        """A value for the drain is taken as it is, also 0."""
        loaded = self.load(DIRECTORY, ("wal-sender-shutdown-timeout", "0"))
        self.assertEqual(loaded.wal_sender_shutdown_timeout, 0.0)

    def test_stateDirectoryOfItsOwn(self) -> None:
        """A state directory that is given is not looked for below the WAL directory."""
        self.assertEqual(self.load(DIRECTORY, ("state-directory", "/state")).state_directory, "/state")

    def test_nothingCanBeChanged(self) -> None:
        """Settings are frozen, the sources too."""
        loaded: Any = self.load(DIRECTORY)
        with self.assertRaises(dataclasses.FrozenInstanceError):
            loaded.fsync = False
        with self.assertRaises(TypeError):
            loaded.sources["fsync"] = "me"


class PrecedenceTests(LoadingTestCase):
    def test_commandLineOverFileOverDefault(self) -> None:
        """The command line wins over the file, the file over the default; each source is remembered."""
        loaded = self.load(
            DIRECTORY,
            ("max-wal-senders", "3"),
            file="max_wal_senders = 2\n\nfsync = off\n",
            c=("sendfile=off",),
        )
        self.assertEqual((loaded.max_wal_senders, loaded.fsync, loaded.sendfile), (3, False, False))
        self.assertEqual(loaded.sources["max_wal_senders"], "command line option --max-wal-senders")
        self.assertEqual(loaded.sources["fsync"], f'file "{self.path}" line 3')
        self.assertEqual(loaded.sources["sendfile"], "command line option -c sendfile")
        self.assertEqual(loaded.sources["inotify"], "default")
        self.assertEqual(set(loaded.sources), {setting.name for setting in SETTINGS})

    def test_lastOneWins(self) -> None:
        """Of several values for one setting in one source the last counts; -c counts after options."""
        self.assertEqual(self.load(DIRECTORY, file="fsync=off\nFSYNC=on").fsync, True)
        self.assertEqual(self.load(DIRECTORY, ("fsync", "off"), ("fsync", "on")).fsync, True)
        self.assertEqual(self.load(DIRECTORY, ("fsync", "off"), c=("fsync=off", "fsync=on")).fsync, True)

    def test_namesInAnySpelling(self) -> None:
        """Options and -c take dashes or underscores and any case."""
        self.assertEqual(self.load(DIRECTORY, ("max_wal_senders", "3")).max_wal_senders, 3)
        self.assertEqual(self.load(DIRECTORY, ("Max-WAL-senders", "3")).max_wal_senders, 3)
        self.assertEqual(self.load(DIRECTORY, c=("max-wal-senders=3",)).max_wal_senders, 3)

    def test_listenMayBeRepeated(self) -> None:
        """Each --listen is one endpoint, whatever it contains, and together they replace the file's list."""
        loaded = self.load(DIRECTORY, ("listen", "unix:/a,b"), ("listen", 'tcp:"1"'), file="listen = 'x, y'")
        self.assertEqual(loaded.listen, ("unix:/a,b", 'tcp:"1"'))
        self.assertEqual(loaded.sources["listen"], "command line option --listen")

    def test_listenAsAList(self) -> None:
        """In the file and with -c listen is a list with commas."""
        self.assertEqual(self.load(DIRECTORY, file="listen = 'a:1=2, \"b,c\"'").listen, ("a:1=2", "b,c"))
        self.assertEqual(self.load(DIRECTORY, ("listen", "x"), c=("listen=a,b",)).listen, ("a", "b"))

    def test_relativePaths(self) -> None:
        """A relative path starts in the working directory, or in the directory of its file."""
        self.assertEqual(self.load(("wal-directory", "wal")).wal_directory, str(Path.cwd() / "wal"))
        self.assertEqual(self.load(file="wal_directory = wal").wal_directory, f"{self.directory}/wal")

    def test_relativeToAGivenDirectory(self) -> None:
        """When a directory is given, relative paths and the configuration file start there."""
        self.path.write_text("fsync = off")
        loaded = Settings.load(
            [("wal-directory", "wal"), ("config-file", self.path.name)], directory=self.directory
        )
        self.assertEqual((loaded.wal_directory, loaded.fsync), (f"{self.directory}/wal", False))

    def test_workingDirectoryThatIsGone(self) -> None:
        """A start in a directory that was removed meanwhile is refused, not a traceback."""
        self.addCleanup(os.chdir, Path.cwd())
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
        self.assertEqual(
            self.refusal(DIRECTORY), "could not identify current directory: No such file or directory"
        )

    def test_configFileAmongTheOptions(self) -> None:
        """``config-file`` may be one of the options, and is made absolute."""
        self.path.write_text("fsync = off")
        loaded = Settings.load([("config-file", str(self.path)), DIRECTORY])
        self.assertIs(loaded.fsync, False)

    def test_assignmentValueMayContainEquals(self) -> None:
        """Only the first equals sign of -c separates."""
        self.assertEqual(
            self.load(DIRECTORY, c=("listen=tcp:1:interface=::1",)).listen, ("tcp:1:interface=::1",)
        )


class RefusalTests(LoadingTestCase):
    def test_unknownName(self) -> None:
        """A name that is no setting is refused with its place, as by PostgreSQL."""
        self.assertEqual(
            self.refusal(DIRECTORY, file="\n" * 6 + "foo = 1"),
            'unrecognized configuration parameter "foo" in file "D/walsender.conf" line 7',
        )
        self.assertEqual(
            self.refusal(("foo", "1")),
            'unrecognized configuration parameter "foo" in command line option --foo',
        )

    def test_nearlyKnownName(self) -> None:
        """A misspelt name is answered with the right one."""
        self.assertEqual(
            self.refusal(DIRECTORY, c=("max_walsenders=1",)),
            'unrecognized configuration parameter "max_walsenders" in command line option -c max_walsenders.'
            ' Perhaps you meant "max_wal_senders".',
        )

    def test_configFileIsNoSetting(self) -> None:
        """A file cannot name another one as the configuration file."""
        self.assertIn(
            'unrecognized configuration parameter "config_file"', self.refusal(file="config_file = 'x'")
        )

    def test_placeAndHintInOneLine(self) -> None:
        """A wrong value is refused with setting, value, place and hint."""
        hint = 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".'
        message = 'invalid value for parameter "wal_sender_timeout": "5 parsecs" in'
        for place, refusal in {
            'file "D/walsender.conf" line 1': self.refusal(file="wal_sender_timeout = '5 parsecs'"),
            "command line option --wal-sender-timeout": self.refusal(("wal-sender-timeout", "5 parsecs")),
            "command line option -c wal_sender_timeout": self.refusal(c=("wal_sender_timeout=5 parsecs",)),
        }.items():
            self.assertEqual(refusal, f"{message} {place}. {hint}")

    def test_rangesOfTheTable(self) -> None:
        """Each number's range is that of the design."""
        for assignment, expected in {
            "max_wal_senders=262144": '262144 is outside the valid range for parameter "max_wal_senders"'
            " (0 .. 262143)",
            "wal_sender_delay=0": '0 ms is outside the valid range for parameter "wal_sender_delay"'
            " (1 ms .. 10000 ms)",
            "wal_sender_delay=11s": '11000 ms is outside the valid range for parameter "wal_sender_delay"'
            " (1 ms .. 10000 ms)",
            "authentication_timeout=11min": "660 s is outside the valid range for parameter"
            ' "authentication_timeout" (1 s .. 600 s)',
            "wal_sender_shutdown_timeout=-1": "-1 ms is outside the valid range for parameter"
            ' "wal_sender_shutdown_timeout" (0 ms .. 2147483647 ms)',
        }.items():
            name = assignment.partition("=")[0]
            self.assertEqual(
                self.refusal(DIRECTORY, c=(assignment,)), f"{expected} in command line option -c {name}"
            )

    def test_overriddenValuesAreCheckedToo(self) -> None:
        """A wrong value in the file is refused though the command line gives another, as by PostgreSQL."""
        self.assertEqual(
            self.refusal(DIRECTORY, ("fsync", "on"), file="fsync = maybe"),
            'parameter "fsync" requires a Boolean value in file "D/walsender.conf" line 1',
        )

    def test_forgottenInsideTheFile(self) -> None:
        """A wrong value that a later line of the file replaces is not looked at, as by PostgreSQL."""
        self.assertIs(self.load(DIRECTORY, file="fsync = maybe\nfsync = off").fsync, False)
        self.assertIs(self.load(DIRECTORY, file="FSYNC = maybe\nfsync = off").fsync, False)

    def test_assignmentWithoutValue(self) -> None:
        """-c without an equals sign is refused as by PostgreSQL."""
        self.assertEqual(self.refusal(c=("fsync",)), "-c fsync requires a value")

    def test_emptyEndpoint(self) -> None:
        """An empty --listen is refused rather than taken for no endpoint."""
        self.assertIn("command line option --listen", self.refusal(DIRECTORY, ("listen", "")))

    def test_missingConfigFile(self) -> None:
        """A configuration file that is not there, or has no name, is refused."""
        error = self.assertRaises(ConfigurationError, Settings.load, [DIRECTORY], "/nonexistent/x.conf")
        self.assertEqual(
            str(error),
            'could not open configuration file "/nonexistent/x.conf": No such file or directory'
            " (from command line option --config-file)",
        )
        for name in ["", "\0"]:
            error = self.assertRaises(ConfigurationError, Settings.load, [DIRECTORY], name)
            self.assertIn("empty configuration file name", str(error))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [*(setting.name for setting in SETTINGS), "include", "include_if_exists", "x"]
                ),
                st.sampled_from([" ", " = ", "=", "\n"]),
                st.one_of(
                    st.sampled_from(["on", "60s", "'1.5 h'", "auto", "8.5", "0x10", "-1", "''", "'a, b'"]),
                    st.text(),
                ),
            ).map("".join)
        )
    )
    def test_anyFileGivesSettingsOrConfigurationError(self, lines: list[str]) -> None:
        """Whatever the file holds, settings come out, or a ConfigurationError of one line."""
        self.path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        try:
            loaded = Settings.load([DIRECTORY], str(self.path))
        except ConfigurationError as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertTrue(loaded.wal_directory.startswith("/"))


class ChangedTests(LoadingTestCase):
    def test_namesOfWhatDiffers(self) -> None:
        """`changed` names the settings whose values differ, in the order of the table."""
        one = self.load(DIRECTORY)
        other = self.load(DIRECTORY, ("sendfile", "off"), ("wal-sender-timeout", "90s"))
        self.assertEqual(
            one.changed(other), ("wal_sender_timeout", "wal_sender_shutdown_timeout", "sendfile")
        )

    def test_sourcesDoNotCount(self) -> None:
        """The same value from another place is no change."""
        one = self.load(DIRECTORY)
        other = self.load(DIRECTORY, file="sendfile = yes")
        self.assertEqual(one.changed(other), ())
        self.assertEqual(one, other)


class OptionsTests(SynchronousTestCase):
    def test_oneForEachSettingAndTheFile(self) -> None:
        """The options are --config-file and the settings, each with dashes."""
        self.assertEqual(
            [option.name for option in options()],
            ["config-file", *(setting.name.replace("_", "-") for setting in SETTINGS)],
        )

    def test_shortOnes(self) -> None:
        """The letters are those of the design, and none is twistd's -c."""
        self.assertEqual(
            {option.short: option.name for option in options() if option.short},
            {"D": "wal-directory", "l": "listen"},
        )

    def test_onlyListenIsRepeatable(self) -> None:
        """Only lists add up."""
        self.assertEqual([option.name for option in options() if option.repeatable], ["listen"])

    def test_helpShowsTheDefault(self) -> None:
        """The description ends with when a change takes effect, and the default where there is one."""
        by_name = {option.name: option.description for option in options()}
        self.assertTrue(by_name["max-wal-senders"].endswith(" (restart) [100]"))
        self.assertTrue(by_name["state-directory"].endswith(" (restart) [WAL_DIRECTORY/walsender_state]"))
        self.assertNotIn("[", by_name["wal-directory"])
