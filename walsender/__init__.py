"""walsender: PostgreSQL's WAL sender as a service of its own, for twistd."""
