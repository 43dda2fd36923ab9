"""Makes ``twistd walsender`` known; named as a string, so listing plugins imports nothing of it."""

from twisted.application.service import ServiceMaker

walsender = ServiceMaker(
    "walsender",
    "walsender.tap",
    "Serve PostgreSQL WAL from a directory over streaming replication.",
    "walsender",
)
