"""
Draw the states of a connection from the tables that the program runs by.

Run without arguments, it writes ``states.md`` beside itself.  A test fails when that is stale.
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

An arrow is a message of the client or an event of the server; what has no arrow is refused.

| state | |
|---|---|
{states}

| event | |
|---|---|
{events}

## From PostgreSQL 9.3 on

```mermaid
{modern}
```

## PostgreSQL 9.1 and 9.2

```mermaid
{reporting}
```

## PostgreSQL 9.0 and the first walsender (8.5)

```mermaid
{first}
```
"""


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


def diagram(table: Transitions) -> str:
    """Return a table as a Mermaid state diagram, one arrow per pair of states."""
    lines = ["stateDiagram-v2", "    [*] --> STARTUP"]
    for state, moves in table.items():
        arrows: dict[State, list[str]] = {}
        for received, following in moves.items():
            arrows.setdefault(following, []).append(received.__name__)
        lines += [
            f"    {state.name} --> {following.name}: {', '.join(names)}"
            for following, names in arrows.items()
        ]
    return "\n".join([*lines, "    CLOSED --> [*]"])


def page() -> str:
    """Return the whole page."""
    return PAGE.format(
        states="\n".join(f"| `{state.name}` | {state.value} |" for state in State),
        events="\n".join(
            f"| `{event.__name__}` | {(inspect.getdoc(event) or '').removeprefix('Event: ')} |"
            for event in events()
        ),
        modern=diagram(MODERN),
        reporting=diagram(REPORTING),
        first=diagram(FIRST),
    )


if __name__ == "__main__":
    (Path(__file__).parent / "states.md").write_text(page())
