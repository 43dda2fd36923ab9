"""
From commit to arrival: through a relay, and through a PostgreSQL 18 cascading standby.

    python -m benchmarks.relay_latency [--standbys 20] [--synchronous]

One primary commits row by row; standbys behind each of the two receive.  The time is from sending the INSERT
to the arrival of its commit record, at each standby; all of them are sockets of this process.  With
``--synchronous`` the one whose turn it is is the primary's synchronous standby, and the time is
until the commit returns.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.harness import Measure, alternate, command_line, machine, percentile
from benchmarks.relayed import Committer, Server, segment_start, servers_behind_a_primary
from walsender.testing.processes import workspace


def main() -> None:
    """Parse the command line, run, report."""
    parser = command_line(__doc__, rounds=9)
    parser.add_argument("--standbys", type=int, default=1, help="how many behind each (1)")
    parser.add_argument("--commits", type=int, default=500, help="commits per round (500)")
    parser.add_argument("--synchronous", action="store_true", help="measure when a commit returns")
    options = parser.parse_args()
    rounds, commits = (1, 20) if options.quick else (options.rounds, options.commits)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        primary, servers = servers_behind_a_primary(stack, space, options.standbys)
        start = segment_start(primary.flush_lsn())
        for server in servers:
            server.connect(options.standbys, start)
            server.wait_for(primary.flush_lsn())
        committer = Committer(primary)

        def times(server: Server) -> list[float]:
            arrived = committer.commit(server)
            return [committer.returned_after] if options.synchronous else arrived

        def turn(server: Server) -> tuple[float, float]:
            with ExitStack() as turn:
                turn.enter_context(server.turn([other for other in servers if other is not server], primary))
                if options.synchronous:
                    turn.enter_context(server.synchronous(primary))
                for _ in range(20):
                    committer.commit(server)
                taken = [time for _ in range(commits) for time in times(server)]
            return percentile(taken, 50) * 1000, percentile(taken, 99) * 1000

        print(f"PostgreSQL {primary.installation.version}, {machine()}")
        print(f"{options.standbys} standby(s) behind each, {commits} commits")
        alternate(servers, rounds, [Measure("p50, ms", 2), Measure("p99, ms", 2)], turn)


if __name__ == "__main__":
    main()
