"""Why the bytes of a field are refused: one error per reason, so that a lab learns what to send differently."""

from typing import ClassVar, Final

from services.errors import PermanentError
from services.imaging.types import FieldFault

AGAIN: Final = "upload it again and requeue the slide"
CONVERT: Final = "save it as 8-bit RGB (JPEG, PNG, TIFF or BMP), upload it again and requeue the slide"
SINGLE_FIELDS: Final = "send the slide as single fields and requeue it"


class FieldRefused(PermanentError):
    """Base of every refusal of a field's bytes; the slide is quarantined under the subclass's `reason`."""

    reason: ClassVar[str] = FieldFault.REFUSED


class FieldEmpty(FieldRefused):
    """The file is empty."""

    reason: ClassVar[str] = FieldFault.EMPTY


class FieldTruncated(FieldRefused):
    """The file ends before its picture does."""

    reason: ClassVar[str] = FieldFault.TRUNCATED


class FieldDamaged(FieldRefused):
    """The file has its full length, but it does not decode, or holds only a part of the picture."""

    reason: ClassVar[str] = FieldFault.DAMAGED


class FieldNotAnImage(FieldRefused):
    """The content is not an image."""

    reason: ClassVar[str] = FieldFault.NOT_AN_IMAGE


class FieldFormatNotAllowed(FieldRefused):
    """An image in a format that is not accepted (GIF, WebP, HEIF, PDF, a camera's raw file)."""

    reason: ClassVar[str] = FieldFault.FORMAT_NOT_ALLOWED


class FieldTooLarge(FieldRefused):
    """More bytes than allowed."""

    reason: ClassVar[str] = FieldFault.TOO_LARGE


class FieldTooSmall(FieldRefused):
    """Too small to show a single head."""

    reason: ClassVar[str] = FieldFault.TOO_SMALL


class FieldTooCoarse(FieldRefused):
    """At its scale the field would have to be enlarged to too many pixels."""

    reason: ClassVar[str] = FieldFault.TOO_COARSE


class FieldTooManyPixels(FieldRefused):
    """More pixels than allowed: a bomb, or a whole-slide scan sent as one field."""

    reason: ClassVar[str] = FieldFault.TOO_MANY_PIXELS


class FieldTooManyPages(FieldRefused):
    """A TIFF of more pages than a focal stack has."""

    reason: ClassVar[str] = FieldFault.TOO_MANY_PAGES


class FieldTooManyParts(FieldRefused):
    """More strips, tiles, chunks or scans than any writer makes of a picture of this size; each costs time."""

    reason: ClassVar[str] = FieldFault.TOO_MANY_PARTS


class FieldTooCompressed(FieldRefused):
    """Too many pixels in too few bytes to be a photograph."""

    reason: ClassVar[str] = FieldFault.TOO_COMPRESSED


class FieldDecoderKilled(FieldRefused):
    """Decoding it exceeded the limits of time or memory, or crashed the decoder's process."""

    reason: ClassVar[str] = FieldFault.DECODER_KILLED


class FieldCMYK(FieldRefused):
    """Print colours: converting them needs the press's profile, and the stain's colour would be a guess."""

    reason: ClassVar[str] = FieldFault.CMYK


class FieldAnimated(FieldRefused):
    """The frames are a time series, and none is named as the field."""

    reason: ClassVar[str] = FieldFault.ANIMATED


class FieldSeparateChannels(FieldRefused):
    """Colour channels in separate pages, planes or files, without a statement which is red, green and blue."""

    reason: ClassVar[str] = FieldFault.SEPARATE_CHANNELS


class FieldTransparent(FieldRefused):
    """Some pixels are transparent: what was behind them is unknown."""

    reason: ClassVar[str] = FieldFault.TRANSPARENT


class FieldUnsupportedMode(FieldRefused):
    """A pixel type without a safe conversion to 8-bit RGB: 1-bit, float, 32-bit, Lab."""

    reason: ClassVar[str] = FieldFault.UNSUPPORTED_MODE
