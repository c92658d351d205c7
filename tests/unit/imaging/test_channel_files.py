"""Names by which microscopes export the channels of one picture."""

import pytest

from services.imaging.decoding.channel_files import MOST_CHANNELS, channel_files


@pytest.mark.parametrize(
    "names",
    [
        ["s/Image_ch00.tif", "s/Image_ch01.tif", "s/Image_ch02.tif"],
        ["s/Image_z00_ch00.tif", "s/Image_z00_ch01.tif"],
        ["scan_c1.png", "scan_c2.png", "scan_c3.png"],
        ["a/x_C001Z001.tif", "a/x_C002Z001.tif"],
        ["exp_w1DAPI.tif", "exp_w2FITC.tif"],
        ["f-red.png", "f-green.png", "f-blue.png"],
        ["f_R.tif", "f_G.tif", "f_B.tif"],
        ["Channel 1.tif", "Channel 2.tif"],
        ["F1_CH1.TIF", "f1_ch2.tif"],
    ],
)
def test_channels_are_known_by_their_names(names: list[str]) -> None:
    assert channel_files([*names, "s/other.tif"]) == set(names)


@pytest.mark.parametrize(
    "names",
    [
        ["f1.jpg", "f2.jpg", "f3.jpg"],
        ["red/f.jpg", "blue/f.jpg"],
        ["batch01.jpg", "batch02.jpg"],
        ["a_ch00.tif", "b_ch01.tif"],
        ["a_ch00.tif", "b/a_ch01.tif"],
        ["a_ch00.tif"],
        ["field_001.jpg", "field_002.jpg"],
        [f"a_c{number}.tif" for number in range(MOST_CHANNELS + 1)],
        ["Green Street 1.jpg", "Green Street 2.jpg"],
    ],
)
def test_numbered_fields_are_fields(names: list[str]) -> None:
    assert channel_files(names) == frozenset()
