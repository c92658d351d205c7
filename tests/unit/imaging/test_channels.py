"""Channels, times and focal planes are told apart by what the file says, and by nothing else."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.imaging.decoding.refusals import FieldRefused
from tests.unit.imaging.drawn_heads import Drawn, draw
from tests.unit.imaging.field_files import FIELD, HEIGHT, TWELVE, WIDTH, decode, planes, saved, tiff, with_tag

NAMES = ("Red", "Green", "Blue")
SHOWN = (-16776961, 16711935, 65535)  # OME's colours: RGBA in a signed integer


def reason(data: bytes) -> str:
    with pytest.raises(FieldRefused) as caught:
        decode(data)
    return caught.value.reason


def ome(
    channels: str,
    *,
    c: int = 1,
    z: int = 1,
    t: int = 1,
    order: str = "XYCZT",
    places: str = "<TiffData/>",
    more: str = "",
) -> str:
    return (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0"'
        f' DimensionOrder="{order}" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="{c}" SizeZ="{z}" SizeT="{t}"'
        f"{more}>{channels}{places}</Pixels></Image></OME>"
    )


def named(names: Sequence[str]) -> str:
    return "".join(f'<Channel ID="Channel:0:{k}" Name="{name}"/>' for k, name in enumerate(names))


def coloured(colours: Sequence[int]) -> str:
    return "".join(f'<Channel ID="Channel:0:{k}" Color="{colour}"/>' for k, colour in enumerate(colours))


def pages(*grey: NDArray[Any], description: str = "") -> bytes:
    options = {"description": description} if description else {}
    return bytes(imagecodecs.tiff_encode(np.stack(grey), photometric="minisblack", **options))


def blurred(picture: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma)).astype(np.uint8)


RED, GREEN, BLUE = planes(FIELD)


def test_red_green_and_blue_pages_are_rebuilt() -> None:
    for channels in (named(NAMES), named(("R", "G", "B")), coloured(SHOWN)):
        decoded = decode(pages(RED, GREEN, BLUE, description=ome(channels, c=3)))
        assert decoded.notes == ("channels",)
        np.testing.assert_array_equal(decoded.pixels, FIELD)


def test_each_channel_goes_where_its_name_says() -> None:
    turned = pages(BLUE, RED, GREEN, description=ome(named(("Blue", "Red", "Green")), c=3))
    np.testing.assert_array_equal(decode(turned).pixels, FIELD)
    places = "".join(f'<TiffData FirstC="{c}" FirstZ="0" FirstT="0" IFD="{2 - c}" PlaneCount="1"/>' for c in range(3))
    reversed_pages = pages(BLUE, GREEN, RED, description=ome(named(NAMES), c=3, places=places))
    np.testing.assert_array_equal(decode(reversed_pages).pixels, FIELD)


def test_twelve_bits_of_three_channels_are_scaled_together() -> None:
    decoded = decode(pages(*planes(TWELVE), description=ome(named(NAMES), c=3, more=' SignificantBits="12"')))
    assert set(decoded.notes) == {"channels", "depth_16_bit"}
    np.testing.assert_array_equal(decoded.pixels, FIELD)


@pytest.mark.parametrize("order", ["XYCZT", "XYZCT"])
def test_the_sharpest_plane_of_three_channels_is_taken_whole(order: str) -> None:
    soft = planes(blurred(FIELD, 3))
    sharp = planes(FIELD)
    stack = [soft, sharp]
    ordered = (
        [stack[z][c] for z in range(2) for c in range(3)]
        if order == "XYCZT"
        else [stack[z][c] for c in range(3) for z in range(2)]
    )
    decoded = decode(pages(*ordered, description=ome(named(NAMES), c=3, z=2, order=order)))
    np.testing.assert_array_equal(decoded.pixels, FIELD)


@pytest.mark.parametrize(
    "description",
    [
        ome("", c=3),
        ome(named(("DAPI", "FITC", "TRITC")), c=3),
        ome(named(("Red", "Red", "Blue")), c=3),
        "ImageJ=1.54f\nimages=3\nchannels=3\nmode=composite\n",
        "ImageJ=1.54f\nimages=3\nchannels=3\nmode=grayscale\nloop=false\n",
        '{"shape": [3, 96, 112], "axes": "CYX"}',
        "",
        "exported by a camera",
    ],
)
def test_channels_that_nobody_can_tell_apart_are_refused(description: str) -> None:
    assert reason(pages(RED, GREEN, BLUE, description=description)) == "field_separate_channels"


def test_pages_named_after_colours_are_channels() -> None:
    data = pages(*[RED, GREEN, BLUE, RED, GREEN], description="x" * 40)
    for page in range(5):
        data = with_tag(data, 285, [0], instead_of=282, page=page)
        at = data.rindex(struct.pack("<HHI", 285, 4, 1))
        data = data[:at] + struct.pack("<HHI4s", 285, 2, 4, b"Red\0") + data[at + 12 :]
    assert reason(data) == "field_separate_channels"


def test_a_channel_in_a_file_of_its_own_is_refused() -> None:
    assert reason(tiff(RED, description=ome(named(NAMES), c=3))) == "field_separate_channels"


def test_samples_of_which_the_colour_is_not_stated_are_refused() -> None:
    as_grey = {"rowsperstrip": 24}
    together = with_tag(tiff(FIELD, **as_grey), 262, [1])
    apart = with_tag(tiff(planes(FIELD), planarconfig="separate", **as_grey), 262, [1])
    assert reason(together) == reason(apart) == "field_separate_channels"


def test_focal_planes_that_the_file_calls_so_are_planes() -> None:
    grey = FIELD[..., 1]
    stack = [blurred(grey, 4), grey, blurred(grey, 2)]
    for description in (
        ome(named(["Transmitted"]), z=3),
        "ImageJ=1.54f\nimages=3\nslices=3\nloop=false\n",
        '{"shape": [3, 96, 112], "axes": "ZYX"}',
    ):
        decoded = decode(pages(*stack, description=description))
        assert decoded.notes == ("greyscale", "page_2_of_3")
        np.testing.assert_array_equal(decoded.pixels, np.dstack([grey] * 3))
    many = decode(pages(*stack, blurred(grey, 3), blurred(grey, 5)))
    assert many.notes == ("greyscale", "page_2_of_5")


def test_an_rgb_stack_of_imagej_is_not_three_slices() -> None:
    labels = b"".join(name.encode("utf-16-be") for name in NAMES)
    data = pages(RED, GREEN, BLUE, description="ImageJ=1.54f\nimages=3\nslices=3\nloop=false\n")
    place = len(data)
    data = with_tag(data + labels, 50839, [place], instead_of=282)
    at = data.index(struct.pack("<HHI", 50839, 4, 1))
    data = data[:at] + struct.pack("<HHII", 50839, 1, len(labels), place) + data[at + 12 :]
    assert reason(data) == "field_separate_channels"


def test_several_pictures_in_one_file_are_not_planes_of_one() -> None:
    two = ome("") + ome("")
    assert reason(pages(GREEN, blurred(GREEN, 3), description=two)) == "field_too_many_pages"


def test_times_are_refused() -> None:
    for description in (
        ome("", t=3),
        "ImageJ=1.54f\nimages=3\nframes=3\n",
        '{"shape": [3, 96, 112], "axes": "TYX"}',
    ):
        assert reason(pages(RED, GREEN, BLUE, description=description)) == "field_animated"


def test_an_interleaved_colour_picture_is_one_field_whatever_its_channels_are_called() -> None:
    for description in (ome(named(["RGB"]), c=3), ome(named(NAMES), c=3), '{"shape": [96, 112, 3]}'):
        decoded = decode(tiff(FIELD, description=description))
        assert decoded.notes == ()
        np.testing.assert_array_equal(decoded.pixels, FIELD)


def test_a_picture_of_one_channel_shown_in_its_colour_is_refused() -> None:
    red_only = FIELD.copy()
    red_only[..., 1:] = 0
    assert reason(saved(red_only, "PNG")) == "field_separate_channels"


def test_pages_of_different_fields_are_not_planes_of_one() -> None:
    places = (
        [(8, 8), (20, 30), (35, 12), (50, 38), (30, 20), (12, 36)],
        [(15, 20), (26, 8), (44, 26), (36, 38), (9, 30)],
    )
    one, other = (draw([Drawn(x, y, angle=11 * x) for x, y in at], 0.18, (58, 46)) for at in places)
    assert reason(tiff_of(one, blurred(one, 3), other)) == "field_too_many_pages"
    np.testing.assert_array_equal(decode(tiff_of(blurred(one, 3), one)).pixels, one)


def tiff_of(*pictures: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    first, *more = map(Image.fromarray, pictures)
    first.save(file, "TIFF", save_all=True, append_images=more)
    return file.getvalue()
