"""Why the bytes of a field are refused: an error a reason, so that a lab learns what to send differently."""

from typing import ClassVar, Final

from services.errors import PermanentError

AGAIN: Final = "upload it again and requeue the slide"
CONVERT: Final = "save it as 8-bit RGB (JPEG, PNG, TIFF or BMP), upload it again and requeue the slide"


class FieldRefused(PermanentError):
    """Base of every refusal of a field's bytes; the slide is quarantined under the subclass's `reason`."""

    reason: ClassVar[str] = "field_refused"


class FieldEmpty(FieldRefused):
    """Zero bytes."""

    reason: ClassVar[str] = "field_empty"


class FieldTruncated(FieldRefused):
    """The file ends before its picture does."""

    reason: ClassVar[str] = "field_truncated"


class FieldDamaged(FieldRefused):
    """All bytes are there by count, but they do not decode."""

    reason: ClassVar[str] = "field_damaged"


class FieldNotAnImage(FieldRefused):
    """The content is no image."""

    reason: ClassVar[str] = "field_not_an_image"


class FieldFormatNotAllowed(FieldRefused):
    """An image, but of a format that is not taken (GIF, WebP, HEIF, PDF)."""

    reason: ClassVar[str] = "field_format_not_allowed"


class FieldTooLarge(FieldRefused):
    """More bytes than allowed."""

    reason: ClassVar[str] = "field_too_large"


class FieldTooManyPixels(FieldRefused):
    """More pixels than allowed: a bomb, or a whole-slide scan sent as one field."""

    reason: ClassVar[str] = "field_too_many_pixels"


class FieldTooManyPages(FieldRefused):
    """A TIFF of more pages than a focal stack has."""

    reason: ClassVar[str] = "field_too_many_pages"


class FieldCMYK(FieldRefused):
    """Print colours: converting them needs the press's profile, and the stain's colour would be a guess."""

    reason: ClassVar[str] = "field_cmyk"


class FieldAnimated(FieldRefused):
    """Frames that are times: which of them is the field, nobody said."""

    reason: ClassVar[str] = "field_animated"


class FieldTransparent(FieldRefused):
    """Some pixels are transparent: what was behind them is unknown."""

    reason: ClassVar[str] = "field_transparent"


class FieldUnsupportedMode(FieldRefused):
    """A pixel type that has no safe way to 8-bit RGB: 1-bit, float, 32-bit, Lab, separate channels."""

    reason: ClassVar[str] = "field_unsupported_mode"
