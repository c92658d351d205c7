"""A field as it was uploaded: fetched, verified and decoded under one set of limits, whoever needs its pixels."""

import hashlib
from dataclasses import dataclass
from typing import Self

from services.errors import PermanentError
from services.imaging.decoding.apart import decode_apart
from services.imaging.decoding.refusals import CONVERT, FieldTooLarge
from services.imaging.types import DecodedField, FieldFault
from services.keys import field_key
from services.settings import Settings
from services.storage import ObjectMissing, ObjectStore, ObjectTooLarge


class FieldMissing(PermanentError):
    """The manifest names a field that the object store does not hold."""

    reason = FieldFault.MISSING


class ChecksumMismatch(PermanentError):
    """The uploaded bytes are not those whose checksum the manifest gives."""

    reason = FieldFault.CHECKSUM_MISMATCH


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """A field beyond one of these is refused: unread, or undecoded."""

    max_bytes: int
    max_pixels: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that this installation is set to."""
        return cls(settings.max_field_bytes, settings.max_field_pixels)


@dataclass(frozen=True, slots=True)
class UploadedField:
    """A field by the names that its manifest gives; `key` is relative to the batch."""

    lab: str
    batch_id: str
    slide_id: str
    key: str
    sha256: str

    def __str__(self) -> str:
        return f"lab {self.lab}, batch {self.batch_id}, slide {self.slide_id}: field {self.key}"

    @property
    def object_key(self) -> str:
        """Where it lies in the object store."""
        return field_key(self.lab, self.batch_id, self.key)


def fetch(store: ObjectStore, field: UploadedField, limits: FieldLimits) -> bytes:
    """The field's bytes, checked against the manifest.

    Raises:
        FieldMissing, ChecksumMismatch: what is there is not what the manifest promises.
        FieldTooLarge: it has more bytes than allowed; it is not read.
        OutageError: the store cannot be reached.
    """
    try:
        data = store.get(field.object_key, max_bytes=limits.max_bytes)
    except ObjectMissing as error:
        raise FieldMissing(f"{field} is not in the object store; upload it and requeue the slide") from error
    except ObjectTooLarge as error:
        raise FieldTooLarge(f"{field}: more than the {limits.max_bytes:,} bytes allowed; {CONVERT}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != field.sha256:
        raise ChecksumMismatch(
            f"{field} has sha256 {digest[:12]}…, the manifest states {field.sha256[:12]}…;"
            " upload it again and requeue the slide"
        )
    return data


def decode(data: bytes, field: UploadedField, limits: FieldLimits) -> DecodedField:
    """The pixels of the fetched bytes, decoded in a process of their own.

    Raises:
        FieldRefused: they are not a picture that is accepted; the subclass's `reason` says why.
        TransientError: there is no process to decode them now.
    """
    return decode_apart(data, str(field), max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)
