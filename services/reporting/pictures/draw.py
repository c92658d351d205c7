"""The pictures of one slide: fields are fetched once, in order, and drawn into the sheets that need them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import date
from typing import Any, Final

import numpy as np
from PIL import Image
from sqlalchemy import Engine, Row
from sqlalchemy.orm import Session

from services.database.session import transaction
from services.errors import PermanentError
from services.fields import FieldLimits, UploadedField, decode, fetch
from services.imaging.crops import crop_cells, crop_of_cell_image
from services.imaging.framing import specimen_of
from services.imaging.types import RGB, Box, Microns
from services.reporting.pictures.heading import Heading
from services.reporting.pictures.overlay import FIELDS_PER_SHEET, ContactSheet, DrawnCell, DrawnField
from services.reporting.pictures.sprites import (
    CELLS_PER_SHEET,
    CROP_PX,
    SPRITE_SHEETS,
    Sprite,
    SpriteSheets,
    is_chosen,
    quotas,
)
from services.reporting.queries import AnalysedField, analysed_fields, stream_cells
from services.reporting.report import Report, SlideReport
from services.storage import ObjectStore
from services.taxonomy import CLASSES, Language, class_named

log = logging.getLogger(__name__)

OVERLAY_SHEETS: Final = 4


@dataclass(slots=True)
class SlidePictures:
    """Draws the sheets of one slide. `notes` says what could not be drawn, and why."""

    engine: Engine
    store: ObjectStore
    report: Report
    slide: SlideReport
    batch_key: int
    day: date
    limits: FieldLimits
    language: Language
    notes: list[str] = dataclass_field(default_factory=list)

    def draw(self) -> Iterator[tuple[str, Image.Image]]:
        """Each sheet with its name. At most one overlay sheet, the sprite sheets and one field are in memory.

        Raises:
            OutageError: the store or the database is down.
        """
        with transaction(self.engine) as session:
            fields = analysed_fields(session, self.batch_key, self.slide.slide_id)
        overlaid = [f for f in fields if not f.is_crop][: OVERLAY_SHEETS * FIELDS_PER_SHEET]
        if skipped := sum(not f.is_crop for f in fields) - len(overlaid):
            self._note(f"the overlay shows the first {len(overlaid)} fields, {skipped} more are not drawn")
        sprites, wanted = self._sprites()
        groups = [overlaid[i : i + FIELDS_PER_SHEET] for i in range(0, len(overlaid), FIELDS_PER_SHEET)]
        for number, group in enumerate(groups, 1):
            yield f"overlay-{number}.jpg", self._overlay(group, number, len(groups), sprites, wanted)
        for field in fields:
            if field.field_key in wanted:
                self._add_sprites(field, self._pixels(field)[0], sprites, wanted)
        for number, sheet in enumerate(sprites.finish(), 1):
            yield f"sprites-{number}.jpg", sheet

    def _overlay(
        self,
        group: list[AnalysedField],
        number: int,
        sheets: int,
        sprites: SpriteSheets,
        wanted: dict[int, list[tuple[int, Box]]],
    ) -> Image.Image:
        cells = self._cells([field.field_key for field in group])
        shapes = [field.height_px / field.width_px for field in group if field.width_px and field.height_px]
        part = f", sheet {number} of {sheets}" if sheets > 1 else ""
        heading = Heading.of(self.report, self.slide, part, marks=True, language=self.language)
        sheet = ContactSheet(len(group), heading, float(np.median(shapes)) if shapes else 0.75)
        for field in group:
            pixels, trouble = self._pixels(field)
            sheet.add(DrawnField(field.key, pixels, cells[field.field_key], field.rejected, trouble or field.reason))
            self._add_sprites(field, pixels, sprites, wanted)
        return sheet.finish()

    def _add_sprites(
        self, field: AnalysedField, pixels: RGB | None, sprites: SpriteSheets, wanted: dict[int, list[tuple[int, Box]]]
    ) -> None:
        chosen = wanted.pop(field.field_key, [])
        if pixels is None or not chosen:
            return
        um_per_px, crop_um = self.slide.um_per_px, self._crop_um
        if field.is_crop:
            crop = crop_of_cell_image(pixels, um_per_px=um_per_px, crop_um=crop_um, size_px=CROP_PX)
            crops = np.broadcast_to(crop, (len(chosen), *crop.shape))
        else:
            boxes = [box for _, box in chosen]
            seen = specimen_of(pixels, um_per_px).pixels  # as the networks saw it
            crops = crop_cells(seen, boxes, um_per_px=um_per_px, crop_um=crop_um, size_px=CROP_PX)
        for (number, _), crop in zip(chosen, crops, strict=True):
            sprites.add(number, crop)

    def _cells(self, field_keys: list[int]) -> dict[int, list[DrawnCell]]:
        cells: dict[int, list[DrawnCell]] = defaultdict(list)
        columns = "field_key, x0, y0, x1, y1, class_index, confidence, head_outline, not_counted"
        with transaction(self.engine) as session:
            for part in self._stream(session, columns, field_keys=field_keys):
                for row in part:
                    known = CLASSES[row.class_index]
                    outline = None
                    if row.head_outline is not None:
                        outline = np.frombuffer(row.head_outline, "<u2").reshape(-1, 2)
                    box = Box(row.x0, row.y0, row.x1, row.y1)
                    name, counted = known.display(self.language), row.not_counted is None
                    cells[row.field_key].append(
                        DrawnCell(box, outline, name, known.region, row.confidence, counted=counted)
                    )
        return cells

    def _sprites(self) -> tuple[SpriteSheets, dict[int, list[tuple[int, Box]]]]:
        """The sheets with their places, and by field which cells are to be cropped from it."""
        shares = self.slide.distribution or ()
        totals = {class_named(share.class_code).index: share.cells for share in shares if share.cells}
        quota = quotas(totals, SPRITE_SHEETS * CELLS_PER_SHEET)
        ranks: Counter[int] = Counter()
        chosen: list[Sprite] = []
        wanted: dict[int, list[tuple[int, Box]]] = defaultdict(list)
        columns = "field_key, number, x0, y0, x1, y1, class_index, confidence"
        with transaction(self.engine) as session:
            order = "class_index, confidence desc, number"
            for part in self._stream(session, columns, counted_only=True, order=order):
                for row in part:
                    rank = ranks[row.class_index]
                    ranks[row.class_index] += 1
                    if is_chosen(rank, totals[row.class_index], quota[row.class_index]):
                        chosen.append(Sprite(row.number, row.class_index, row.confidence))
                        wanted[row.field_key].append((row.number, Box(row.x0, row.y0, row.x1, row.y1)))
        if (cells := sum(totals.values())) > len(chosen):
            self._note(f"the sprite sheets show {len(chosen)} of {cells} cells, spread evenly over each class")
        heading = Heading.of(
            self.report, self.slide, f", crops of {self._crop_um:g} µm", marks=False, language=self.language
        )
        return SpriteSheets(chosen, totals, heading), dict(wanted)

    def _stream(
        self,
        session: Session,
        columns: str,
        *,
        field_keys: list[int] | None = None,
        counted_only: bool = False,
        order: str = "number",
    ) -> Iterator[list[Row[Any]]]:
        return stream_cells(
            *(session, columns, self.batch_key, self.day),
            slide_id=self.slide.slide_id,
            field_keys=field_keys,
            counted_only=counted_only,
            order=order,
        )

    def _pixels(self, field: AnalysedField) -> tuple[RGB | None, str | None]:
        """The field's pixels, or the reason code of why there are none."""
        if field.width_px is None:  # its bytes were refused when it was analysed, and are not tried again
            return None, field.reason
        uploaded = UploadedField(self.report.lab, self.report.batch_id, self.slide.slide_id, field.key, field.sha256)
        try:
            # Its own copy: the decoder's memory is for the next field.
            return decode(fetch(self.store, uploaded, self.limits), uploaded, self.limits).pixels.copy(), None
        except PermanentError as error:
            log.warning("%s: %s", error.reason, error)
            self._note(f"field {field.key} can no longer be drawn ({error.reason}); its counts remain valid")
            return None, error.reason

    @property
    def _crop_um(self) -> Microns:
        return self.report.release_of(self.slide).crop_um

    def _note(self, line: str) -> None:
        self.notes.append(f"slide {self.slide.slide_id}: {line}")
