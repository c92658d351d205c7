-- Who may do what. The roles belong to the server and are there before.

grant usage on schema reporting to morphbatch_analyst;
grant select on all tables in schema reporting to morphbatch_analyst;
-- Views that a later revision adds need no grant of their own.
alter default privileges in schema reporting grant select on tables to morphbatch_analyst;
