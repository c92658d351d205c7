"""Alembic migrations of the database, run by `morphbatch migrate` from this package alone: no ini file."""
