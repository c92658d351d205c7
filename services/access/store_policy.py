"""The border of a lab in the object store: a key that may write its uploads and read its results, and nothing else."""

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from urllib3.exceptions import HTTPError

from services.intake.validation import check_lab_name
from services.keys import incoming_of, results_of
from services.settings import Settings
from services.storage import StoreRefused, StoreUnavailable

_WRITE: Final = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
_READ: Final = ["s3:GetObject"]


@dataclass(frozen=True, slots=True)
class StoreKey:
    """A lab's key of the object store. The secret is shown once, to whoever made it."""

    access_key: str
    secret_key: str
    policy: str


def lab_policy(lab: str, bucket: str) -> dict[str, Any]:
    """The policy in the language of S3, which MinIO and AWS share.

    Raises:
        BadBatchName: the lab's code cannot be used, such as one that holds a wildcard.
    """
    check_lab_name(lab)
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow("PutUploads", _WRITE, f"{bucket}/{incoming_of(lab)}*"),
            _allow("GetResults", _READ, f"{bucket}/{results_of(lab)}*"),
        ],
    }


def policy_name(lab: str) -> str:
    """What the policy of a lab is called in the store."""
    return f"morphbatch-lab-{lab}"


def apply_to_minio(settings: Settings, lab: str, *, admin_key: str, admin_secret: str) -> StoreKey:
    """Make the lab's policy and its key `lab-LAB` in MinIO; a key that is there gets another secret.

    Raises:
        BadBatchName: the lab's code cannot be used.
        StoreRefused: it is not MinIO, or the key is not an administrator's.
        StoreUnavailable: it cannot be reached.
    """
    policy = lab_policy(lab, settings.s3_bucket)
    url = urlsplit(settings.s3_endpoint)
    key = StoreKey(f"lab-{lab}", secrets.token_urlsafe(30), policy_name(lab))
    try:
        admin = MinioAdmin(
            endpoint=url.netloc,
            credentials=StaticProvider(admin_key, admin_secret),
            region=settings.s3_region,
            secure=url.scheme == "https",
        )
        admin.policy_add(key.policy, policy=policy)
        admin.user_add(key.access_key, key.secret_key)
        admin.policy_set(key.policy, user=key.access_key)
    except (MinioAdminException, ValueError) as error:
        raise StoreRefused(
            f"{settings.s3_endpoint} refuses the policy of lab {lab}: is it MinIO, and the key an administrator's?"
        ) from error
    except HTTPError as error:
        raise StoreUnavailable(f"the object store cannot be reached: {error}") from error
    return key


def as_text(policy: dict[str, Any]) -> str:
    """The policy as a file."""
    return json.dumps(policy, indent=2)


def _allow(name: str, actions: list[str], resource: str) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": [f"arn:aws:s3:::{resource}"]}
