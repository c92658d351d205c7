"""Revision 0010 with rows: what a slide had before it was sent round again stays a result of its own."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from migrations.run import upgrade
from services.database.session import transaction
from tests.integration.servers import Postgres

BEFORE = """
select make_cell_partitions('2026-11-01', 1);
insert into lab (code) values ('berlin');
insert into model_release (id, kind, document) values ('r1', 'trained', '{}'), ('r2', 'trained', '{}');
insert into batch (lab_id, batch_code, state, manifest_sha256, manifest_etag, received_on)
values (1, 'n', 'analysing', '0', '0', '2026-11-23');
insert into slide (batch_id, position, slide_code, specimen, replicate, stain, um_per_px)
select 1, n, slide, 'S', 1, 'shorr', 0.1
from unnest(array['done', 'again', 'again-broken', 'first', 'other-release']) with ordinality as given (slide, n);
insert into field (slide_id, position, key, sha256) select id, 0, slide_code || '/f.png', slide_code from slide;
insert into analysis
    (slide_id, release_id, state, queued_at, attempts, lease_token, lease_until, reason, cells_classified)
select s.id, release, g.state, cast(queued as timestamptz), attempts, token, cast(until as timestamptz), g.reason, cells
from (values
    ('done', 'r1', 'done', '2026-11-23', 1, null, null, null, 2),
    ('again', 'r1', 'queued', '2026-11-24', 0, null, null, null, 2),
    ('again-broken', 'r1', 'running', '2026-11-24', 1, 'token', '2026-11-24', 'inference_unavailable', 0),
    ('first', 'r1', 'queued', '2026-11-23', 0, null, null, null, 0),
    ('other-release', 'r1', 'done', '2026-11-23', 1, null, null, null, 2),
    ('other-release', 'r2', 'queued', '2026-11-24', 1, null, null, null, 2)
) g (slide, release, state, queued, attempts, token, until, reason, cells)
join slide s on s.slide_code = g.slide;
insert into field_result (analysis_id, field_id, cells, reason, detail)
select a.id, f.id, a.cells_classified, case when a.cells_classified = 0 then 'checksum_mismatch' end,
    case when a.cells_classified = 0 then 'upload it again' end
from analysis a join slide s on s.id = a.slide_id join field f on f.slide_id = s.id where s.slide_code <> 'first';
insert into slide_class_count (analysis_id, class_index, cells)
select id, 7, cells_classified from analysis where cells_classified > 0;
insert into cell (received_on, analysis_id, number, field_id, x0, y0, x1, y1, class_index, confidence, probabilities,
    efficientnetv2_s_logits, resnetv2_50_logits)
select '2026-11-23', a.id, n, f.id, 0, 0, 9, 9, 7, 1, array_fill(0.05::real, array[18]), '{}', '{}'
from analysis a join field f on f.slide_id = a.slide_id, generate_series(1, a.cells_classified) n;
"""

ANALYSES = """
select s.slide_code, a.version, a.release_id, a.state, a.reason, a.detail, a.lease_token, a.attempts,
    to_char(a.queued_at at time zone 'UTC', 'DD') as queued,
    (select count(*) from cell c where c.analysis_id = a.id) as cells,
    (select count(*) from field_result r where r.analysis_id = a.id) as fields
from analysis a join slide s on s.id = a.slide_id order by s.position, a.version
"""


@pytest.fixture
def upgraded(postgres: Postgres) -> Iterator[Engine]:
    """A database that had these rows before versions of analyses."""
    with postgres.empty_database() as engine:
        url = engine.url.render_as_string(hide_password=False)
        engine.dispose()  # nothing of ours may hold a lock that a migration waits for
        upgrade(url, "0009")
        with transaction(engine) as session:
            session.connection().exec_driver_sql(BEFORE)
        engine.dispose()
        upgrade(url, "head")
        yield engine


def test_a_slide_that_waits_again_keeps_its_result_and_gets_another_version(upgraded: Engine) -> None:
    with transaction(upgraded) as session:
        found = [tuple(row) for row in session.execute(text(ANALYSES))]
        counted = session.execute(
            text(
                "select slide_id, state, cells, version, later_version, later_state from reporting.slide_result"
                " order by slide_id"
            )
        ).all()
    broken = ("quarantined", "checksum_mismatch", "upload it again")
    assert found == [
        ("done", 1, "r1", "done", None, None, None, 1, "23", 2, 1),
        ("again", 1, "r1", "done", None, None, None, 0, "24", 2, 1),
        ("again", 2, "r1", "queued", None, None, None, 0, "24", 0, 0),
        ("again-broken", 1, "r1", *broken, None, 1, "24", 0, 1),
        ("again-broken", 2, "r1", "queued", None, None, None, 0, "24", 0, 0),
        ("first", 1, "r1", "queued", None, None, None, 0, "23", 0, 0),
        ("other-release", 1, "r1", "done", None, None, None, 1, "23", 2, 1),
        ("other-release", 2, "r2", "done", None, None, None, 1, "24", 2, 1),
        ("other-release", 3, "r2", "queued", None, None, None, 0, "24", 0, 0),
    ]
    assert [tuple(row) for row in counted] == [
        ("again", "done", 2, 1, 2, "queued"),
        ("again-broken", "queued", 0, 2, None, None),
        ("done", "done", 2, 1, None, None),
        ("first", "queued", 0, 1, None, None),
        ("other-release", "done", 2, 2, 3, "queued"),
    ]
