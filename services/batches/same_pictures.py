"""The same picture in two slides of a batch, whatever files hold it: told once all of its slides have ended."""

import numpy as np
from sqlalchemy import Engine

from services.batches.queries import note_same_pictures, places_of_heads, signature_rows
from services.database.session import transaction
from services.imaging.likeness import SIDE, first_of_same, heads_agree


def find_same_pictures(engine: Engine, batch_key: int) -> None:
    """Note which fields of different slides of the batch show the same, in the place of what was noted before.

    In a batch of thousands of fields some have their heads nearly in the same places by chance: these are looked at.
    """
    with transaction(engine) as session:
        rows = signature_rows(session, batch_key)
    signatures = np.frombuffer(b"".join(row.signature for row in rows), np.int8).reshape(-1, SIDE**2)
    first = first_of_same(signatures, np.array([row.slide_key for row in rows], np.int64))
    alike = {rows[at].field_id: rows[first[at]].field_id for at in range(len(rows)) if first[at] != at}
    looked_at = {*alike, *alike.values()}
    with transaction(engine) as session:
        heads = places_of_heads(session, [row for row in rows if row.field_id in looked_at])
        same = {field: other for field, other in alike.items() if heads_agree(heads[field], heads[other])}
        note_same_pictures(session, batch_key, same | {other: other for other in same.values()})
