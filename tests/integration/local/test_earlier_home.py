"""A home of before the roles were separate: one role, `morphbatch`, owned everything."""

import json
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from migrations.run import require_head, upgrade
from services.database.faults import DatabaseUnavailable
from services.database.session import make_engine, transaction
from services.errors import ConfigurationError
from services.local.installation import OWNER, ROLES, SERVICE, Installation, load_installation, prepare_installation
from services.local.postgres import postgres_service
from tests.integration.servers import serving


def test_it_starts_and_its_rows_are_kept(tmp_path: Path) -> None:
    url = _make_earlier_home(tmp_path)
    with pytest.raises(ConfigurationError, match="an earlier version"):
        load_installation(tmp_path)
    installation = prepare_installation(tmp_path, None, minio_available=False)
    assert load_installation(tmp_path) == installation
    for _ in range(2):  # the second start finds all done
        with serving(postgres_service(installation), installation):
            upgrade(installation.database_url(OWNER))
            engine = make_engine(installation.database_url(SERVICE))
            with transaction(engine) as session:
                assert session.scalars(text("select code from lab")).all() == ["kept"]
                owners = (
                    "select distinct relowner::regrole::text from pg_class where relnamespace = 'public'::regnamespace"
                )
                assert session.scalars(text(owners)).all() == [OWNER]
                assert session.scalars(
                    text("select rolname from pg_roles where rolcreatedb or rolcreaterole")
                ).all() == ["postgres"]
            require_head(engine)
            engine.dispose()
            with pytest.raises(DatabaseUnavailable, match="morphbatch"):
                make_engine(url).connect()


def _make_earlier_home(home: Path) -> str:
    """As the version before left it, at its last revision and with a row; the URL of its role."""
    installation = prepare_installation(home, "rclone", minio_available=False)
    service = replace(postgres_service(installation), settle=lambda: _make_one_role(installation))
    url = f"postgresql+psycopg2://morphbatch:secret@127.0.0.1:{installation.ports['postgres']}/morphbatch"
    with serving(service, installation):
        upgrade(url, "0004")
        engine = make_engine(url)
        with transaction(engine) as session:
            session.execute(text("insert into lab (code) values ('kept')"))  # not by today's model
        engine.dispose()
    path = home / "installation.json"
    document = json.loads(path.read_text())
    document["secrets"] = {k: v for k, v in document["secrets"].items() if k not in ROLES} | {"postgres": "secret"}
    del document["ports"]["worker_metrics"]
    path.write_text(json.dumps(document))
    return url


def _make_one_role(installation: Installation) -> None:
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=installation.ports["postgres"],
        user="postgres",
        password=installation.secrets["postgres_superuser"],
        dbname="postgres",
    )
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("create role morphbatch login createdb createrole password 'secret'")
    cursor.execute("create database morphbatch owner morphbatch")
    connection.close()
