"""Safe decoding of a field that came from outside: bytes in, 8-bit RGB out, or a refusal with its own reason code.

The content decides what a file is, never its name. Byte size, structure and pixel size are checked from the header
before anything is decoded, so a bomb or half a file costs nothing. What had to be converted is named in `notes`:
`content_not_as_named`, `greyscale`, `palette`, `alpha` (fully opaque, dropped), `depth_16_bit`, `orientation` (the
field was turned the way every viewer shows it: boxes of a manifest are in that picture), `page_k_of_n`.
"""

import io
import re
import struct
import warnings
import zlib
from pathlib import PurePosixPath
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from services.imaging.decoding.file_structure import MAX_PAGES, Source, check_structure, sniff
from services.imaging.decoding.refusals import (
    AGAIN,
    CONVERT,
    FieldAnimated,
    FieldCMYK,
    FieldDamaged,
    FieldEmpty,
    FieldTooLarge,
    FieldTooManyPages,
    FieldTooManyPixels,
    FieldTransparent,
    FieldUnsupportedMode,
)
from services.imaging.types import RGB, DecodedField

# A picture of up to twice Pillow's own pixel limit is only a warning to it.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

TIME_MARK: Final = re.compile(r'(?:frames=|SizeT=")(\d+)')  # ImageJ's and OME's ways of saying that pages are times
CHANNEL_MARK: Final = re.compile(r"channels=(\d+)")

_ENDINGS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
}
# What the decoders are known to raise on damaged bytes (UserWarning where warnings are errors). MemoryError is not
# among them: that is ours, not the file's.
_DECODER_FAILURES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    UserWarning,
    cv2.error,
    struct.error,
    zlib.error,
)


def decode_field(data: bytes, name: str, *, max_bytes: int, max_pixels: int) -> DecodedField:
    """Decode the file `data`, called `name`, to 8-bit RGB `[H, W, 3]`.

    16-bit data is divided by the smallest power of two that brings its maximum to 8 bits (12-bit cameras write 12 bits
    into 16-bit files), so ratios of intensity survive. Of a multi-page TIFF the sharpest full-size page is taken.

    Raises:
        FieldRefused: one of the subclasses in `refusals`, each with its `reason`; nothing else comes out.
    """
    if not data:
        raise FieldEmpty(f"{name}: the file has no bytes; {AGAIN}")
    if len(data) > max_bytes:
        raise FieldTooLarge(f"{name}: {len(data):,} bytes, {max_bytes:,} are allowed; {CONVERT}")
    source = Source(data, name, max_pixels)
    kind = sniff(source)
    notes: list[str] = []
    if _ENDINGS.get(PurePosixPath(name).suffix.lower(), kind) != kind:
        notes.append("content_not_as_named")
    try:
        check_structure(source, kind)
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            source.check_size(*image.size)
            if kind == "JPEG":
                pixels = _decode_jpeg(source, image, notes)
            elif isinstance(image, TiffImagePlugin.TiffImageFile):
                pixels = _decode_tiff(source, image, notes)
            else:
                pixels = _upright(_to_rgb(source, image, _bit_depth(data, kind), notes), _orientation(image), notes)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FieldTooManyPixels(f"{name}: {error}; {CONVERT}") from error
    except _DECODER_FAILURES as error:
        raise FieldDamaged(f"{name}: the {kind} data does not decode ({error}); {AGAIN}") from error
    return DecodedField(pixels=np.ascontiguousarray(pixels), notes=tuple(notes))


def _decode_jpeg(source: Source, image: Image.Image, notes: list[str]) -> RGB:
    if image.mode == "CMYK":
        raise FieldCMYK(f"{source.name}: print colours (CMYK); {CONVERT}")
    if image.mode == "L":
        notes.append("greyscale")
    # 5 ms where Pillow takes 17 for the 1280×1024 of a usual camera.
    pixels = cv2.imdecode(np.frombuffer(source.data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape != (image.height, image.width, 3):
        raise FieldDamaged(f"{source.name}: the JPEG data does not decode; {AGAIN}")
    return _upright(_bytes(pixels), _orientation(image), notes)


def _bytes(array: NDArray[np.generic]) -> RGB:
    return array.astype(np.uint8, copy=False)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read: the picture is still good."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except (*_DECODER_FAILURES, Warning):
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: RGB, orientation: int, notes: list[str]) -> RGB:
    if orientation == 1:
        return pixels
    notes.append("orientation")
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _bit_depth(data: bytes, kind: str) -> int:
    """Bits a channel of a PNG; Pillow hides them, as it keeps only the high byte of 16-bit colour."""
    return data[24] if kind == "PNG" else 8


def _to_rgb(source: Source, image: Image.Image, depth: int, notes: list[str], page: int = 0) -> RGB:
    mode = image.mode
    if mode == "CMYK":
        raise FieldCMYK(f"{source.name}: print colours (CMYK); {CONVERT}")
    if mode.startswith("I;16"):
        notes += ["depth_16_bit", "greyscale"]
        return _bytes(cv2.cvtColor(_to_8_bit(np.asarray(image).astype(np.uint16)), cv2.COLOR_GRAY2RGB))
    if mode not in ("L", "LA", "P", "PA", "RGB", "RGBA"):
        raise FieldUnsupportedMode(f"{source.name}: pixels of type {mode}; {CONVERT}")
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        notes.append("alpha")
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise FieldTransparent(f"{source.name}: some pixels are transparent; {CONVERT}")
    if mode in ("P", "PA"):
        notes.append("palette")
    if mode in ("L", "LA"):
        notes.append("greyscale")
    if depth > 8:
        notes.append("depth_16_bit")
        return _colour_16_bit(source, page)
    return np.array(image.convert("RGB"))


def _colour_16_bit(source: Source, page: int) -> RGB:
    """16-bit colour by OpenCV: Pillow keeps the high byte only, which leaves 4 bits of a 12-bit camera."""
    ok, pages = cv2.imdecodemulti(
        np.frombuffer(source.data, np.uint8),
        cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
        range=(page, page + 1),
    )
    if not ok or not pages or pages[0].dtype != np.uint16 or pages[0].ndim != 3:
        raise FieldDamaged(f"{source.name}: the 16-bit data does not decode; {AGAIN}")
    return _bytes(cv2.cvtColor(_to_8_bit(pages[0][..., :3].astype(np.uint16)), cv2.COLOR_BGR2RGB))


def _to_8_bit(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    bits = max(8, int(values.max()).bit_length())
    return (values >> (bits - 8)).astype(np.uint8)


def _decode_tiff(source: Source, image: TiffImagePlugin.TiffImageFile, notes: list[str]) -> RGB:
    """The sharpest of the full-size pages; smaller pages are thumbnails and pyramid levels."""
    sizes = _page_sizes(source, image)
    full = max(sizes.values(), key=lambda size: size[0] * size[1])
    pages = [page for page, size in sizes.items() if size == full]
    best: tuple[float, RGB, list[str]] | None = None
    for page in pages:
        image.seek(page)
        page_notes: list[str] = []
        pixels = _decode_page(source, image, page, page_notes)
        if len(pages) > 1:
            page_notes.append(f"page_{page + 1}_of_{len(sizes)}")
        sharpness = _sharpness(pixels) if len(pages) > 1 else 0.0
        if best is None or sharpness > best[0]:
            best = sharpness, pixels, page_notes
    if best is None:
        raise FieldDamaged(f"{source.name}: a TIFF without a page; {AGAIN}")
    notes += best[2]
    return best[1]


def _page_sizes(source: Source, image: TiffImagePlugin.TiffImageFile) -> dict[int, tuple[int, int]]:
    description = str(image.tag_v2.get(270, ""))
    if (times := TIME_MARK.search(description)) and int(times[1]) > 1:
        raise FieldAnimated(f"{source.name}: a time series; send the one frame that is the field and requeue")
    if (channels := CHANNEL_MARK.search(description)) and int(channels[1]) > 1:
        raise FieldUnsupportedMode(f"{source.name}: each page is another colour channel; {CONVERT}")
    sizes: dict[int, tuple[int, int]] = {}
    for page in range(MAX_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            break
        source.check_size(*image.size)
        sizes[page] = image.size
    if len(sizes) > MAX_PAGES:
        raise FieldTooManyPages(f"{source.name}: more than {MAX_PAGES} pages; send the field's planes only and requeue")
    return sizes


def _decode_page(source: Source, image: TiffImagePlugin.TiffImageFile, page: int, notes: list[str]) -> RGB:
    tags = image.tag_v2
    for offsets, counts in ((273, 279), (324, 325)):
        ends = [int(o) + int(c) for o, c in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)]
        if max(ends, default=0) > len(source.data):
            raise source.ends_early("TIFF")
    depth = max(tags.get(258, (8,)))
    if depth > 8 and (tags.get(262) == 0 or set(tags.get(339, (1,))) != {1}):
        raise FieldUnsupportedMode(f"{source.name}: {depth}-bit inverted, signed or float pixels; {CONVERT}")
    if tags.get(274, 1) in range(2, 9):
        notes.append("orientation")  # Pillow on load, and OpenCV whatever its flags say, turn a TIFF upright themselves
    image.load()
    return _to_rgb(source, image, depth, notes, page)


def _sharpness(pixels: RGB) -> float:
    """Energy of gradients over squared brightness, for telling planes of one field apart; unitless."""
    green = cv2.GaussianBlur(pixels[..., 1], (3, 3), 0)
    gx, gy = cv2.spatialGradient(green)
    energy = float(cv2.norm(gx, cv2.NORM_L2SQR) + cv2.norm(gy, cv2.NORM_L2SQR)) / green.size
    return energy / max(float(green.mean()), 1.0) ** 2
