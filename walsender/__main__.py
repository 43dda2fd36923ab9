"""``python -m walsender``: what is no service.  (The service is ``twistd walsender``.)"""

from __future__ import annotations

import argparse
import sys

from walsender import demo


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="walsender",
        description="Programs around walsender. The server itself is: twistd walsender --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo_command = commands.add_parser(
        "demo",
        help="a live PostgreSQL, pg_receivewal, walsender and a standby, in a temporary directory",
        description="PostgreSQL writes WAL, pg_receivewal archives it, walsender serves the archive, and a"
        " standby follows; positions and lag are shown once a second. Ctrl-C ends it.",
    )
    demo_command.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end after this time")
    options = parser.parse_args(arguments)

    return demo.run(options.duration)


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
