"""WAL at rest: segments, pages, records, histories, and where valid WAL ends."""
