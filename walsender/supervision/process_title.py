"""The title that ``ps`` and ``top`` show, by the optional package setproctitle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ProcessTitle:
    """
    Shows what the process does.

    :param set_title: as ``setproctitle.setproctitle``.
    :param cluster_name: is shown before it, as PostgreSQL does.

    Source: PostgreSQL, src/backend/utils/misc/ps_status.c, init_ps_display.
    """

    def __init__(self, set_title: Callable[[str], object], cluster_name: str = "") -> None:
        self._set_title = set_title
        self._prefix = f"walsender: {cluster_name}: " if cluster_name else "walsender: "
        self._shown = ""

    @classmethod
    def of_this_process(cls, cluster_name: str) -> ProcessTitle | None:
        """Return that of this process; ``None``: the package is not installed."""
        try:
            from setproctitle import setproctitle  # noqa: PLC0415
        except ImportError:
            return None
        return cls(setproctitle, cluster_name)

    def show(self, activity: str) -> None:
        """Show it, unless it is shown already."""
        if activity != self._shown:
            self._set_title(self._prefix + activity)
            self._shown = activity
