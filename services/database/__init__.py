"""Postgres: the only truth about what is done."""
