"""The log of a real twistd process: its forms, changed while it runs, and systemd's journal behind it."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING

from twistd_helpers import RUN, Twistd, make_wal, small_place

from walsender.testing.processes import ChildProcess, source_environment, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "geheim"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ "


def test_forms() -> None:
    """Prefix, level and form are as in the file, and as in what SIGHUP reads; no secret is in any."""
    with small_place() as place:
        (place / "wal").mkdir()
        file = place / "walsender.conf"
        upstream = f"primary_conninfo = 'host=127.0.0.1 port=1 password={SECRET}'\n"
        file.write_text(f"{upstream}log_connections = on\nlog_line_prefix = '<%u %h> '\n")
        command = ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1", "--config-file", str(file)]
        twistd = Twistd(place, command)
        with RawClient("127.0.0.1", twistd.port, application_name="a\nb") as client:
            client.until(b"E")
        twistd.wait_for_log("<postgres 127.0.0.1> FATAL:  the database system is starting up\n")
        text = twistd.log_text()
        assert re.match(r"< > LOG:  starting walsender \S+ with Twisted \S+ on Python \S+\n", text)
        assert re.search(
            r"\n<\[unknown\] 127\.0\.0\.1> LOG:  connection received: host=127\.0\.0\.1 port=\d+\n", text
        )
        assert "Factory" not in text

        file.write_text(
            f"{upstream}log_destination = jsonlog\nlog_min_messages = debug1\nprimary_slot_name = x\n"
        )
        twistd.signal(signal.SIGHUP)
        twistd.wait_for_log('changed to \\"jsonlog\\"')
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0
        before, _, after = twistd.log_text().partition("reloading configuration files\n")
        lines = [json.loads(line) for line in after.splitlines()]
        assert 'parameter "log_min_messages" changed to "debug1"' in [line["message"] for line in lines]
        # What Twisted says is there now, and our own process.
        assert ("DEBUG1", twistd.pid) in {(line["error_severity"], line["pid"]) for line in lines}
        assert SECRET not in before + after
        assert "Traceback" not in before + after


def test_statements() -> None:
    """With an error stands the command that caused it, until that is not wanted any more."""
    with small_place() as place:
        make_wal(place / "wal")
        file = place / "walsender.conf"
        file.write_text("log_line_prefix = '<%a> '\n")
        listen = "tcp:0:interface=127.0.0.1"
        twistd = Twistd(place, ["walsender", "-D", "wal", "-l", listen, "--config-file", str(file)])
        command = "START_REPLICATION 0/100000 TIMELINE 9"

        def said(name: str) -> list[str]:
            with RawClient("127.0.0.1", twistd.port, application_name=name).ready() as client:
                client.query(command)
            lines = [line for line in twistd.log_text().splitlines() if line.startswith(f"<{name}> ")]
            return [line.removeprefix(f"<{name}> ") for line in lines if "LOG: " not in line]

        error = "ERROR:  requested timeline 9 is not in this server's history"
        assert said("first") == [error, f"STATEMENT:  {command}"]
        file.write_text("log_line_prefix = '<%a> '\nlog_min_error_statement = panic\n")
        twistd.signal(signal.SIGHUP)
        twistd.wait_for_log('parameter "log_min_error_statement" changed to "panic"')
        assert said("second") == [error]
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0


def test_journal(tmp_path: Path) -> None:
    """In the journal no line has a time of ours, and each has its priority; elsewhere it is the reverse."""
    log = tmp_path / "journal"
    make_wal(tmp_path / "wal")
    log.touch()
    options = ["-D", tmp_path / "wal", "-l", "tcp:0:interface=127.0.0.1"]
    program = [sys.executable, "-bb", "-c", RUN, "--nodaemon", "--pidfile=", "walsender", *options]
    status = log.stat()
    for inode, form in ((status.st_ino, r"<6>\[\d+\] LOG:  "), (status.st_ino + 1, rf"{TIME}\[\d+\] LOG:  ")):
        environment = {**source_environment(), "JOURNAL_STREAM": f"{status.st_dev}:{inode}"}
        with ChildProcess("walsender", program, log, environment=environment) as twistd:
            wait_until(lambda: "listening" in twistd.log_text(), 60, "walsender to listen", logs=[twistd])
            twistd.signal(signal.SIGTERM)
            assert twistd.wait() == 0
            lines = twistd.log_text().splitlines()
        assert "shutting down" in lines[-1]
        for line in lines:
            assert re.match(form, line), line
