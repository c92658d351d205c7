"""What a token allows."""

from enum import StrEnum


class Scope(StrEnum):
    """Each stands apart from the others: `administer` does not hold `read`."""

    UPLOAD = "upload"
    READ = "read"
    REVIEW = "review"
    ADMINISTER = "administer"
