"""
Draw the states of a connection from the tables that the program runs by.

Run without arguments, it writes ``states.md`` and its drawings beside itself.  A test fails when
they are stale.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from walsender.sender import states
from walsender.sender.states import FIRST, MODERN, REPORTING, State

if TYPE_CHECKING:
    from walsender.sender.states import Transitions

PAGE = """\
# States of a connection

Drawn by `docs/make_state_diagram.py` from `walsender/sender/states.py`; do not edit.

An arrow is a message of the client or an event of the server; what has no arrow is refused. What changes
nothing stands in the state's box.

| state | |
|---|---|
{states}

| event | |
|---|---|
{events}
{sections}"""
SECTION = """
## {title}

![The states and their arrows, which the table below lists, too]({file})

| from | to | on |
|---|---|---|
{rows}
"""
TABLES = {
    "states-modern.svg": ("From PostgreSQL 9.3 on", MODERN),
    "states-reporting.svg": ("PostgreSQL 9.1 and 9.2", REPORTING),
    "states-first.svg": ("PostgreSQL 9.0 and the first walsender (8.5)", FIRST),
}

ROW, BOX, LANE = 22, 190, 16
LABELS = 180  # as wide as the longest
STYLE = """\
<style>
rect.state{fill:#eef3f8;stroke:#33506b} path{fill:none;stroke:#33506b} text{font:13px sans-serif}
text.name{font-weight:bold} text.loop,text.on{font-size:11px}
text.on{paint-order:stroke;stroke:#fff;stroke-width:3px}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0L8 4L0 8z" style="fill:#33506b"/></marker></defs>"""


def events() -> list[type]:
    """Return the events that the tables name beside messages, in the order of their definition."""
    named = {
        received for table in (MODERN, REPORTING, FIRST) for moves in table.values() for received in moves
    }
    return [
        each
        for each in vars(states).values()
        if isinstance(each, type) and each in named and each.__module__ == states.__name__
    ]


def arrows(table: Transitions) -> dict[tuple[State, State], list[str]]:
    """Return what leads from one state to another, one arrow per pair of states."""
    found: dict[tuple[State, State], list[str]] = {}
    for state, moves in table.items():
        for received, following in moves.items():
            found.setdefault((state, following), []).append(received.__name__)
    return found


def drawing(table: Transitions) -> str:
    """
    Return a table as an SVG.

    The states stand in a column.  Each arrow leaves its state to the right, with what it is taken on
    above it, goes up or down in a lane of its own, and comes back to the right of the next state, in a
    row of its own.
    """
    loops = {state: names for (state, following), names in arrows(table).items() if state is following}
    others = {pair: names for pair, names in arrows(table).items() if pair[0] is not pair[1]}
    rows: dict[tuple[tuple[State, State], bool], int] = {}
    parts: list[str] = []
    top = 10
    for state in table:
        incoming = [pair for pair in others if pair[1] is state]
        outgoing = [pair for pair in others if pair[0] is state]
        wrapped = _wrapped(loops.get(state, []))
        first = top + ROW // 2
        for number, pair in enumerate(incoming):
            rows[pair, True] = first + number * ROW
        for number, pair in enumerate(outgoing, len(incoming)):
            rows[pair, False] = first + number * ROW
        height = max(len(incoming) + len(outgoing), 1 + len(wrapped), 2) * ROW
        parts.append(f'<rect class="state" x="10" y="{top}" width="{BOX}" height="{height}" rx="6"/>')
        parts.append(f'<text class="name" x="20" y="{top + 16}">{state.name}</text>')
        parts += [
            f'<text class="loop" x="20" y="{top + 16 + ROW * number}">{line}</text>'
            for number, line in enumerate(wrapped, 1)
        ]
        top += height + ROW // 2
    edge = 10 + BOX
    for number, (pair, names) in enumerate(others.items()):
        start, end, lane = rows[pair, False], rows[pair, True], edge + LABELS + LANE * number
        parts.append(
            f'<path d="M{edge} {start} H{lane} V{end} H{edge + 1}" marker-end="url(#head)"/>'
            f'<text class="on" x="{edge + 8}" y="{start - 4}">{", ".join(names)}</text>'
        )
    width = edge + LABELS + LANE * len(others) + 10
    size = f'width="{width}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" {size}>\n{STYLE}'
    return "\n".join([head, f'<rect {size} fill="#fff"/>', *parts, "</svg>\n"])


def _wrapped(names: list[str]) -> list[str]:
    """Return *names* in lines that fit into a box."""
    lines: list[str] = []
    for name in names:
        if lines and len(lines[-1]) + len(name) < 26:  # noqa: PLR2004 (letters)
            lines[-1] += f", {name}"
        else:
            lines.append(name)
    return lines


def drawings() -> dict[str, str]:
    """Return all drawings by the names of their files."""
    return {file: drawing(table) for file, (_, table) in TABLES.items()}


def page() -> str:
    """Return the whole page."""
    return PAGE.format(
        states="\n".join(f"| `{state.name}` | {state.value} |" for state in State),
        events="\n".join(
            f"| `{event.__name__}` | {(inspect.getdoc(event) or '').removeprefix('Event: ')} |"
            for event in events()
        ),
        sections="".join(
            SECTION.format(
                title=title,
                file=file,
                rows="\n".join(
                    f"| `{state.name}` | `{following.name}` | {', '.join(names)} |"
                    for (state, following), names in arrows(table).items()
                ),
            )
            for file, (title, table) in TABLES.items()
        ),
    )


if __name__ == "__main__":
    place = Path(__file__).parent
    (place / "states.md").write_text(page())
    for file, text in drawings().items():
        (place / file).write_text(text)
