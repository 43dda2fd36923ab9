"""Settings as `pg_settings` shows them, and connection strings without their secrets."""

from __future__ import annotations

import tempfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.settings import SETTINGS, Settings
from walsender.settings.description import SettingDescription, describe, with_unit
from walsender.settings.secrets import without_password

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


class DescriptionTests(SynchronousTestCase):
    """One row for each setting."""

    def rows(
        self, *options: tuple[str, str], file: str = "", pending: tuple[str, ...] = ()
    ) -> dict[str, SettingDescription]:
        """Return the rows of these options and this content of a configuration file, by name."""
        with tempfile.NamedTemporaryFile("w") as config:
            config.write(file)
            config.flush()
            settings = Settings.load([("wal-directory", "/wal"), *options], config.name)
            self.path = config.name
        return {one.name: one for one in describe(settings, pending)}

    def test_allAreThere(self) -> None:
        """Each setting has one row, with the values that its kind permits."""
        rows = self.rows()
        self.assertEqual([setting.name for setting in SETTINGS], list(rows))
        for name, expected in (
            ("wal_sender_timeout", ("60000", "1min", "ms", "integer", "0", str((1 << 31) - 1), "60000")),
            ("authentication_timeout", ("60", "1min", "s", "integer", "1", "600", "60")),
            ("wal_keep_size", ("-1", "-1", "MB", "integer", "-1", str((1 << 31) - 1), "-1")),
            ("max_wal_senders", ("100", "100", None, "integer", "0", "262143", "100")),
            ("fsync", ("on", "on", None, "bool", None, None, "on")),
            ("protocol_dialect", ("auto", "auto", None, "enum", None, None, "auto")),
            ("verify_wal", ("off", "off", None, "string", None, None, "off")),
            ("wal_directory", ("/wal", "/wal", None, "string", None, None, None)),
        ):
            row = rows[name]
            found = (row.setting, row.shown, row.unit, row.vartype, row.min_val, row.max_val, row.boot_val)
            self.assertEqual(expected, found, name)
        self.assertEqual(("auto", "8.5"), rows["protocol_dialect"].enumvals)
        self.assertEqual(("postmaster", "sighup"), (rows["fsync"].context, rows["sendfile"].context))

    def test_sources(self) -> None:
        """Where a value comes from, as PostgreSQL names it."""
        rows = self.rows(("sendfile", "off"), file="wal_keep_size = 2GB\n", pending=("fsync",))
        self.assertEqual(("off", "command line"), (rows["sendfile"].setting, rows["sendfile"].source))
        row = rows["wal_keep_size"]
        self.assertEqual(("2048", "2GB", "configuration file"), (row.setting, row.shown, row.source))
        self.assertEqual((self.path, 1), (row.sourcefile, row.sourceline))
        self.assertEqual("default", rows["inotify"].source)
        self.assertEqual((True, False), (rows["fsync"].pending_restart, rows["inotify"].pending_restart))

    def test_withUnit(self) -> None:
        """As SHOW prints them: in the largest unit that divides them."""
        for count, unit, text in (
            (0, "ms", "0"),
            (1500, "ms", "1500ms"),
            (5000, "ms", "5s"),
            (3_600_000, "ms", "1h"),
            (90, "s", "90s"),
            (86_400, "s", "1d"),
            (1024, "MB", "1GB"),
            (1000, "MB", "1000MB"),
            (-1, "MB", "-1"),
        ):
            self.assertEqual(text, with_unit(count, unit))

    def test_noPassword(self) -> None:
        """The upstream's password is not part of it."""
        row = self.rows(("primary-conninfo", "host=a password='b c' user=d"))["primary_conninfo"]
        self.assertEqual("host=a password=******** user=d", row.setting)
        self.assertEqual(row.setting, row.shown)


class SecretTests(SynchronousTestCase):
    """Connection strings without secrets."""

    def test_forms(self) -> None:
        """Words, quotes with backslashes, blanks around the sign, addresses; what is no secret stays."""
        for given_text, text in (
            ("host=a password=b", "host=a password=********"),
            (r"password='b \' c' host=a", "password=******** host=a"),
            (r"password=b\ c host=a", "password=******** host=a"),
            ("PASSWORD = b", "PASSWORD = ********"),
            ("sslpassword=x oauth_client_secret=y", "sslpassword=******** oauth_client_secret=********"),
            ("password='never ends", "password=********"),
            ("passfile=/a user=b", "passfile=/a user=b"),
            (
                "postgresql://u:p@h:1/d?sslpassword=x&user=y",
                "postgresql://u:********@h:1/d?sslpassword=********&user=y",
            ),
            ("postgres://u@h/d?password=x", "postgres://u@h/d?password=********"),
            ("", ""),
        ):
            self.assertEqual(text, without_password(given_text))

    @given(WORDS, st.text(st.characters(exclude_characters="\0"), min_size=1), WORDS)
    def test_anyPassword(self, before: str, password: str, after: str) -> None:
        """Whatever is in a password, nothing of it is left, and what is around it stays."""
        quoted = password.replace("\\", "\\\\").replace("'", "\\'")
        text = f"host={before} password='{quoted}' user={after}"
        self.assertEqual(f"host={before} password=******** user={after}", without_password(text))
