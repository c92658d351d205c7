"""The border of a lab in SQL: a login role that reads the views of `lab_reporting`, in which only its lab's rows are.

The views compare the lab with the name of the role that logged in (`session_user`), which nobody but a superuser can
change. Roles are a superuser's to make, so that this only says how.
"""

from typing import Final

from services.errors import PermanentError
from services.intake.validation import check_lab_name

PREFIX: Final = "lab_"
GROUP: Final = "morphbatch_lab"
_LONGEST_ROLE: Final = 63  # Postgres cuts longer names off


class LabNameTooLong(PermanentError):
    """No role of Postgres can be called after the lab."""

    reason = "lab_name_too_long"


def role_of(lab: str) -> str:
    """What the role of a lab is called.

    Raises:
        BadBatchName: the lab's code cannot be used.
        LabNameTooLong: it has more than 59 characters.
    """
    check_lab_name(lab)
    if len(PREFIX + lab) > _LONGEST_ROLE:
        raise LabNameTooLong(f"{lab} has more than {_LONGEST_ROLE - len(PREFIX)} characters: no role can be called so")
    return PREFIX + lab


def statements(lab: str) -> list[str]:
    """What a superuser runs in psql; the last line asks for a password.

    Raises:
        BadBatchName, LabNameTooLong: see `role_of`.
    """
    role = f'"{role_of(lab)}"'  # a lab's code holds no quotation mark
    return [
        f"create role {role} login in role {GROUP} connection limit 5;",
        f"alter role {role} set temp_file_limit = '4GB';",
        f"alter role {role} set statement_timeout = '10min';",
        f"\\password {role}",
    ]
