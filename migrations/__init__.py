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
   **Expand, then contract.** While a new version is rolled out, the one before runs on its database. So a revision
   takes nothing away that the code before uses (no table, column, view or grant dropped or renamed, none of another
   type, no column that must be given a value, no stricter rule), and says `only_expands = True`. What the code of this
   version does not use any more is dropped in the next version, by a revision that says
   `oldest_code = "<this version's revision>"` and names it in `unused = ("table.column", …)`. A revision that says
   neither needs every process stopped.
3. `pytest tests/integration/migrations` holds each revision to that, compares a database that went through every
   revision with one made from the current state, and prints what the revision lacks.
"""
