"""The addresses of this machine, which ``samehost`` and ``samenet`` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Interface, IPv6Interface


def own_interfaces() -> Sequence[IPv4Interface | IPv6Interface]:
    """Return every address that this machine has now, with its network."""
    raise NotImplementedError
