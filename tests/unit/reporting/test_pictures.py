"""The pictures: what must be seen is there, what must fit fits."""

import io
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from services.imaging.types import Box, RejectedObject, RejectReason
from services.reporting.palette import REGION_COLOURS, WARNING_GROUND, lettering
from services.reporting.pictures.heading import Heading, blank_sheet
from services.reporting.pictures.overlay import ContactSheet, DrawnCell, DrawnField, draw_field
from services.reporting.pictures.sprites import CELLS_PER_SHEET, CROP_PX, Sprite, SpriteSheets, is_chosen, quotas
from services.taxonomy import CLASS_NAMES, Region

PALE = np.full((400, 500, 3), 225, np.uint8)
PLAIN = Heading("lab / batch / slide", "papanicolaou")


def cell(box: Box, *, outline: np.ndarray | None = None, region: Region = Region.HEAD) -> DrawnCell:
    return DrawnCell(box, outline, "AmorfHead", region, 0.87)


def pixels_of(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.abs(np.asarray(image).astype(int) - colour).max(axis=-1) <= 2).sum())


def test_a_cell_is_framed_in_the_colour_of_its_region_where_it_is() -> None:
    picture = draw_field(DrawnField("f", PALE, [cell(Box(100, 150, 180, 210), region=Region.TAIL)]), (500, 400))
    frame = np.asarray(picture)[150:210, 100:180]
    blue = np.abs(frame.astype(int) - REGION_COLOURS[Region.TAIL]).max(axis=-1) < 60
    assert blue[:2].any(axis=0).mean() > 0.95
    assert blue[:, -2:].any(axis=1).mean() > 0.95
    assert not blue[20:-20, 20:-20].any()


def test_a_cell_that_does_not_count_is_outlined_and_has_no_frame_of_its_region() -> None:
    uncounted = replace(cell(Box(100, 150, 180, 210), region=Region.TAIL), counted=False)
    picture = draw_field(DrawnField("f", PALE, [uncounted]), (500, 400))
    assert not pixels_of(picture, REGION_COLOURS[Region.TAIL])
    frame = np.asarray(picture)[150:210, 100:180]
    assert (frame != 225).any(axis=-1)[:2].any(), "dashes"


def test_an_outline_is_drawn_along_its_polygon() -> None:
    diamond = np.array([[300, 100], [340, 140], [300, 180], [260, 140]], np.uint16)
    picture = draw_field(DrawnField("f", PALE, [cell(Box(255, 95, 345, 185), outline=diamond)]), (500, 400))
    on_its_edge = np.asarray(picture)[119:122, 319:322]
    assert (np.abs(on_its_edge.astype(int) - REGION_COLOURS[Region.HEAD]).max(axis=-1) < 90).any()


def test_boxes_keep_their_place_when_the_field_is_shrunk() -> None:
    field = np.full((1000, 2000, 3), 225, np.uint8)
    picture = draw_field(DrawnField("f", field, [cell(Box(1000, 500, 1400, 900))]), (500, 500))
    assert picture.size == (500, 250)
    changed = np.argwhere((np.asarray(picture) != 225).any(axis=-1))
    assert changed[:, 1].min() == pytest.approx(249, abs=2)
    assert changed[:, 0].max() == pytest.approx(225, abs=2)


def test_left_out_objects_are_marked_and_a_border_box_may_reach_outside() -> None:
    rejected = [
        RejectedObject(Box(0, 0, 30, 25), RejectReason.BORDER),
        RejectedObject(Box(200, 200, 240, 240), RejectReason.SHAPE),
    ]
    picture = np.asarray(draw_field(DrawnField("f", PALE, (), rejected), (500, 400)))
    assert (picture[190:250, 190:250] != 225).any()
    assert (picture[:35, :40] != 225).any()


def test_labels_never_cover_another_cell() -> None:
    boxes = [Box(x, y, x + 40, y + 30) for x in range(20, 440, 60) for y in range(20, 340, 48)]
    picture = np.asarray(draw_field(DrawnField("f", PALE, [cell(box) for box in boxes]), (500, 400)))
    for x0, y0, x1, y1 in boxes:
        assert (picture[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4] == 225).all()


def test_3000_cells_in_one_field_are_drawn_in_seconds_of_the_processor() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 350, (3000, 2)).tolist()
    cells = [cell(Box(x, y, x + 20, y + 16)) for x, y in corners]
    began = time.process_time()
    assert draw_field(DrawnField("f", PALE, cells), (500, 400)).size == (500, 400)
    assert time.process_time() - began < 5  # 0.5 s on an idle core


def test_the_warning_is_the_first_thing_on_a_sheet() -> None:
    warned = blank_sheet(1200, 300, Heading("t", "s", warning="UNTRAINED NETWORKS: classes are meaningless"))
    assert np.asarray(warned)[2, 2].tolist() == list(WARNING_GROUND)
    assert pixels_of(blank_sheet(1200, 300, PLAIN), WARNING_GROUND) == 0


def test_a_field_that_cannot_be_read_leaves_the_others_on_the_sheet() -> None:
    sheet = ContactSheet(2, PLAIN, 0.8)
    sheet.add(DrawnField("gone.jpg", None, trouble="field_missing"))
    sheet.add(DrawnField("good.jpg", PALE, [cell(Box(100, 100, 180, 160))]))
    picture = sheet.finish()
    assert pixels_of(picture, REGION_COLOURS[Region.HEAD]) > 100
    assert (np.asarray(picture)[:, : picture.width // 2] == (170, 20, 20)).all(axis=-1).any()


@pytest.mark.parametrize("shape", [(60, 80), (3000, 4000), (900, 300)])
def test_fields_of_any_size_fit_their_tile(shape: tuple[int, int]) -> None:
    sheet = ContactSheet(1, PLAIN, shape[0] / shape[1])
    sheet.add(DrawnField("f", np.full((*shape, 3), 90, np.uint8)))
    assert sheet.finish().width < 2100


def test_rare_classes_are_shown_whole_and_frequent_ones_share_the_rest() -> None:
    given = quotas({0: 3, 1: 1000, 2: 1000, 3: 0}, 203)
    assert given == {0: 3, 1: 100, 2: 100}
    assert quotas({0: 5, 7: 9}, 800) == {0: 5, 7: 9}


@pytest.mark.parametrize(("cells", "quota"), [(1000, 100), (7, 7), (10, 3), (5, 0), (801, 800)])
def test_a_quota_is_met_and_spread(cells: int, quota: int) -> None:
    chosen = [rank for rank in range(cells) if is_chosen(rank, cells, quota)]
    assert len(chosen) == quota
    if quota > 1:
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1


def test_every_crop_comes_to_the_place_of_its_number() -> None:
    sprites = [Sprite(n, n % 2, 0.9 - n / 1000) for n in range(30)]
    sprites.sort(key=lambda s: (s.class_index, -s.confidence))
    sheets = SpriteSheets(sprites, Counter({0: 15, 1: 15}), PLAIN)
    for sprite in reversed(sprites):
        sheets.add(sprite.number, np.full((CROP_PX, CROP_PX, 3), 40 + 7 * sprite.number, np.uint8))
    (picture,) = sheets.finish()
    grey = np.asarray(picture)
    for sprite in sprites:
        level = 40 + 7 * sprite.number
        assert int((grey == level).all(axis=-1).sum()) >= CROP_PX * CROP_PX
    first = np.argwhere((grey == 40).all(axis=-1))[0]
    second = np.argwhere((grey == 40 + 7).all(axis=-1))[0]
    assert first[0] < second[0], f"{CLASS_NAMES[0]} stands above {CLASS_NAMES[1]}"


def test_more_cells_than_a_sheet_holds_go_on_a_second() -> None:
    sprites = [Sprite(n, 0, 0.5) for n in range(CELLS_PER_SHEET + 1)]
    assert len(list(SpriteSheets(sprites, {0: CELLS_PER_SHEET + 1}, PLAIN).finish())) == 2


def test_sheets_are_the_same_bytes_each_time() -> None:
    def drawn() -> bytes:
        data = io.BytesIO()
        draw_field(DrawnField("f", PALE, [cell(Box(10, 10, 60, 50))]), (500, 400)).save(data, "JPEG")
        return data.getvalue()

    assert drawn() == drawn()


@pytest.mark.parametrize(
    "text",
    [
        "".join(chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x180))),
        "".join(chr(code) for code in range(0x391, 0x3CF) if code != 0x3A2),
        "".join(chr(code) for code in range(0x400, 0x460)),
        "µ×–…√ıŞğŁőœ",
    ],
    ids=["latin", "greek", "cyrillic", "others"],
)
def test_pictures_have_letters_for_the_names_of_europe(text: str) -> None:
    font = lettering(20)
    box = bytes(font.getmask("\U0010fffd"))  # what stands for a letter that the font has not
    assert [letter for letter in text if bytes(font.getmask(letter)) == box] == []


def test_the_name_of_a_slide_is_drawn_as_it_is_written() -> None:
    def drawn(title: str) -> bytes:
        return blank_sheet(900, 200, Heading(title, "shorr, 0.1 µm/px")).tobytes()

    assert len({drawn(title) for title in ("Мазок 1", "Слайд 1", "Δείγμα 1", "Straße 1", "Işık 1")}) == 5
