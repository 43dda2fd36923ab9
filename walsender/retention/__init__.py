"""How much WAL a relay keeps, and what happens to the rest."""

from walsender.retention.archive import archive_availability
from walsender.retention.decision import Demand, Limits, WalStatus, safe_wal_size, wal_status
from walsender.retention.remover import WalRemover

__all__ = [
    "Demand",
    "Limits",
    "WalRemover",
    "WalStatus",
    "archive_availability",
    "safe_wal_size",
    "wal_status",
]
