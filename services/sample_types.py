"""The types of sample that a manifest may name."""

from enum import StrEnum


class SampleType(StrEnum):
    """What a specimen is, as far as it changes how its result is read."""

    SEMEN = "semen"
    PREPARED_SEMEN = "prepared_semen"  # after washing, swim-up or a density gradient
    EPIDIDYMAL_ASPIRATE = "epididymal_aspirate"
    TESTICULAR_TISSUE = "testicular_tissue"
    URINE_AFTER_EJACULATION = "urine_after_ejaculation"
