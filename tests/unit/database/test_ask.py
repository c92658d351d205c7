"""What psql is given to open a session: the password apart from the rest."""

import pytest

from services.database.ask import psql_session


@pytest.mark.parametrize(
    ("url", "argument"),
    [
        ("postgresql+psycopg2://anna:a%20secret@db:5432/morphbatch", "postgresql://anna@db:5432/morphbatch"),
        ("postgresql+psycopg2://anna@db/morphbatch?password=a%20secret", "postgresql://anna@db/morphbatch"),
    ],
)
def test_a_password_goes_by_the_environment_wherever_it_stands_in_the_url(url: str, argument: str) -> None:
    assert psql_session(url) == (argument, {"PGPASSWORD": "a secret"})
