"""Every reason for which a field is refused or set aside, and every flag, is explained to who sent it."""

from services.imaging.types import FieldFault, QualityFlag, SetAside
from tests.places import CHECKOUT


def test_every_reason_is_explained() -> None:
    explained = (CHECKOUT / "docs" / "imaging.md").read_text(encoding="utf-8")
    left_out = {FieldFault.REFUSED}  # the base of the others; none is only that
    missing = [reason for reason in (*FieldFault, *SetAside, *QualityFlag) if f"`{reason}`" not in explained]
    assert set(missing) == left_out
