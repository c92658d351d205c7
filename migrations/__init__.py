"""Alembic migrations of the database, run by `morphbatch migrate` from this package alone: no ini file.

`versions/` is history: each revision holds all it needs, imports nothing of ours, and is never edited once it has
landed. The current state stands beside it: the tables in `services/database/models.py`; views, functions and
privileges in `views/`; `current.py` makes a database of them at once. No revision reads any of these.
The roles belong to the server: `roles.sql` makes them, before the first revision.

To change the database:

1. Edit the current state: a model (a new column goes to the end of its table), or a file of `views/`, with a comment in
   `services/reporting/columns.py` for each new column of a view.
2. Write `versions/NNNN_subject.py`: the statements that lead there from the revision before, and back. Copy into it
   what it creates, and name every constraint by the pattern in `services/database/models.py`. A view that only gains
   columns at its end is replaced (`create or replace view`); any other change drops it, and creates it again, with
   every view that builds on it, their comments and their grants.
   Tables of schema `public` and functions are nobody's but the owner's: grant the service what it does with them, here
   and in `views/privileges.sql`. A function `security definer` sets `search_path = public, pg_temp`.
3. `pytest tests/integration/migrations` compares a database that went through every revision with one made from the
   current state, and prints what the revision lacks.
"""
