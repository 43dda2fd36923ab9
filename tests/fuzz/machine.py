"""The deeds of a `Siege` as the rules of a hypothesis state machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byte_script import LYING, NUMBERED, SPOKEN, TYPED, WORDED
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from siege import VERSIONS, Siege

if TYPE_CHECKING:
    from collections.abc import Callable

numbers = st.integers(0, 65535)
cuts = st.integers(0, 255)
lengths = st.one_of(
    st.sampled_from((0, 3, 4, 5, 10_000, 10_001, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 1 << 31)),
    st.integers(0, (1 << 32) - 1),
)
kinds = st.one_of(st.sampled_from(b"QdcfpXSHPBDECF"), st.integers(0, 255))
_STRATEGIES: dict[tuple[str, ...], dict[str, Any]] = {
    NUMBERED: {"choice": numbers},
    SPOKEN: {"choice": numbers, "cut": cuts},
    WORDED: {"data": st.binary(max_size=300), "cut": cuts},
    TYPED: {"kind": kinds, "data": st.binary(max_size=300), "cut": cuts},
    LYING: {"kind": kinds, "length": lengths, "cut": cuts},
}


class SiegeMachine(RuleBasedStateMachine):
    """
    One siege.

    :cvar plays: how many there were.
    :cvar deeds: how many deeds.
    """

    plays = deeds = 0
    siege: Siege | None = None

    @initialize(version=st.sampled_from(VERSIONS))
    def begin(self, version: int | None) -> None:
        """The server starts."""
        self.siege = Siege(version)
        type(self).plays += 1

    @invariant()
    def holds(self) -> None:
        """See `Siege.check`."""
        if self.siege is not None:
            self.siege.check()

    def teardown(self) -> None:
        """See `Siege.end`."""
        siege, self.siege = self.siege, None
        if siege is not None:
            siege.end()


def _rule(name: str, strategies: dict[str, Any]) -> Callable[..., None]:
    def deed(self: SiegeMachine, **choices: Any) -> None:
        assert self.siege is not None
        SiegeMachine.deeds += 1
        getattr(self.siege, name)(**choices)

    deed.__name__ = name
    return rule(**strategies)(deed)


for _names, _strategies in _STRATEGIES.items():
    for _name in _names:
        setattr(SiegeMachine, _name, _rule(_name, _strategies))
