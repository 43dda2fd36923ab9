"""``python -m walsender``: what is no service.  (The service is ``twistd walsender``.)"""

from __future__ import annotations

import argparse
import sys

from walsender import check, demo, probe

_STATUSES = "Exit status: 0 clean, 1 not clean, 2 it could not be checked (or wrong usage)."


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return the exit status."""
    options = parse(arguments)
    if options.command == "check":
        return check.run(options.directory)
    if options.command == "probe":
        return probe.run(options.url)
    return demo.run(options.duration, kill_every_s=options.kill_every, open_page=options.open)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return what the command line means; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="walsender",
        description="Programs around walsender.",
        epilog="The server itself is: twistd walsender --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    check_command = commands.add_parser(
        "check",
        help="whether a directory of WAL is good, to its last record",
        description="Lists the timelines in a directory of WAL, with their segments, and checks every record"
        " of them, in compressed files and partial ones too. Says which segments are missing, and where the"
        " first byte is that is not valid. Nothing is written, and no server need run.",
        epilog=_STATUSES,
    )
    check_command.add_argument("directory", metavar="DIR", help="directory of WAL segments")
    probe_command = commands.add_parser(
        "probe",
        help="whether a running server is well, for containers and scripts",
        description="Asks a server that was started with --http, and prints what it answers.",
        epilog="Exit status: 0 it is well, 1 it is not or does not answer.",
    )
    probe_command.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        default=probe.DEFAULT_URL,
        help="/health, /liveness or /readiness of it [default: %(default)s]",
    )
    demo_command = commands.add_parser(
        "demo",
        help="a live PostgreSQL, a relay, two standbys and a pg_receivewal, in a temporary directory",
        description="PostgreSQL writes WAL, a relay receives it, and two standbys and a pg_receivewal follow"
        " the relay; positions and lag are shown once a second. In a terminal k kills the relay (kill -9),"
        " which is started again, and q or Ctrl-C ends the demo. Then all are compared with the primary.",
    )
    demo_command.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end after this time")
    demo_command.add_argument(
        "--kill-every", type=_seconds, metavar="SECONDS", help="kill the relay each time this has gone by"
    )
    demo_command.add_argument("--open", action="store_true", help="show the relay's page in a browser")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
