"""The object store: one bucket behind a small interface, spoken to in plain S3.

Every error of the SDK, of HTTP and of the network becomes one of four, told apart by what a caller does next: the
object is not there, it is larger than asked for, the store is down (wait), or it refuses (an operator must fix it).
"""

import io
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Final, Self
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, CopySource
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig, SuffixFilterRule
from minio.versioningconfig import VersioningConfig
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from services.errors import ConfigurationError, MorphbatchError, OutageError, PermanentError
from services.keys import INCOMING, MANIFEST_SUFFIX, probe_key
from services.settings import Settings, variable

_SUBSCRIPTION_ID: Final = "morphbatch-manifests"
_BODY_ATTEMPTS: Final = 3
_PART_BYTES: Final = 64 * 2**20  # below this an object is one PUT, and its ETag the MD5 of its content
_MISSING_CODES: Final = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "ResourceNotFound"})
_MOST_SKEW_S: Final = 900  # S3 refuses signatures that are older or younger


class ObjectMissing(PermanentError):
    """The bucket has no object with this key."""

    reason = "object_missing"


class ObjectTooLarge(PermanentError):
    """The object is larger than the caller accepts; nothing of it was kept."""

    reason = "object_too_large"


class StoreUnavailable(OutageError):
    """The object store cannot be reached, answers 5xx or asks to slow down."""

    reason = "store_unavailable"


class StoreRefused(ConfigurationError):
    """The object store refuses the request: keys, rights, clock or bucket are wrong."""

    reason = "store_refused"


class StoreFull(StoreUnavailable):
    """The object store has no room, or no more of it for us. It goes on once room is made."""

    reason = "store_full"


class StoreClockDiffers(StoreRefused):
    """The object store refuses signatures, since its clock and this machine's differ: no matter of keys or rights."""

    reason = "store_clock_differs"


_KEYS: Final = "check MORPHBATCH_S3_ACCESS_KEY and MORPHBATCH_S3_SECRET_KEY"
_PLACE: Final = "check MORPHBATCH_S3_ENDPOINT and MORPHBATCH_S3_REGION"
_ROOM: Final = (StoreFull, "it has no room: make some, or raise the quota of the bucket")
_BUSY: Final = (StoreUnavailable, "it asks to come again later")
_REFUSALS: Final[dict[str, tuple[type[StoreUnavailable | StoreRefused], str]]] = {
    "AccessDenied": (
        StoreRefused,
        "check the rights of the access key on the bucket: read, write, list, delete",
    ),
    "AccountProblem": (StoreRefused, "the account is closed or in debt; ask whoever runs the object store"),
    "AllAccessDisabled": (StoreRefused, "the bucket is closed; ask whoever runs the object store"),
    "AuthorizationHeaderMalformed": (StoreRefused, _PLACE),
    "EntityTooLarge": (StoreRefused, "it takes no object of this size"),
    "ExpiredToken": (StoreRefused, "the access key has expired: set a new MORPHBATCH_S3_ACCESS_KEY with its secret"),
    "InsufficientStorage": _ROOM,
    "InternalError": _BUSY,
    "InvalidAccessKeyId": (StoreRefused, f"it does not know this access key: {_KEYS}"),
    "InvalidBucketName": (StoreRefused, "check MORPHBATCH_S3_BUCKET"),
    "InvalidObjectState": (StoreRefused, "the object is archived: restore it first"),
    "InvalidToken": (StoreRefused, _KEYS),
    "MethodNotAllowed": (StoreRefused, "it cannot do this; is MORPHBATCH_S3_ENDPOINT an S3 server?"),
    "MovedPermanently": (StoreRefused, _PLACE),
    "NoSuchBucket": (StoreRefused, "there is no such bucket: create it, or name another in MORPHBATCH_S3_BUCKET"),
    "NotImplemented": (StoreRefused, "it cannot do this; is MORPHBATCH_S3_ENDPOINT an S3 server?"),
    "PermanentRedirect": (StoreRefused, _PLACE),
    "QuotaExceeded": _ROOM,
    "RequestTimeTooSkewed": (StoreClockDiffers, "set both machines' clocks by NTP"),
    "RequestTimeout": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SignatureDoesNotMatch": (StoreRefused, _KEYS),
    "SlowDown": _BUSY,
    "TooManyRequests": _BUSY,
    "XMinioAdminBucketQuotaExceeded": _ROOM,
    "XMinioStorageFull": _ROOM,
}
"""What to do about each code of S3's, https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and some of
other servers'; the class says whether waiting helps."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's key, size in bytes and ETag (without quotes; the MD5 of the content after a plain PUT)."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """One bucket. May be shared by threads, never across a fork.

    Every method raises `StoreUnavailable` when the store is down and `StoreRefused` when it refuses.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is none.
            ObjectTooLarge: it has more than `max_bytes`; it is not read.
        """
        for attempt in range(1, _BODY_ATTEMPTS + 1):
            try:
                return self._read(key, max_bytes)
            except StoreUnavailable as error:
                # urllib3 retries a request, but not a body that breaks off while it is read.
                if attempt == _BODY_ATTEMPTS or not isinstance(error, _BodyBroken):
                    raise
        raise AssertionError("unreachable")

    def _read(self, key: str, max_bytes: int) -> bytes:
        with self._errors(key):
            response = self._client.get_object(self.bucket, key)
        try:
            size = int(response.headers.get("content-length", -1))
            if size > max_bytes:
                response.close()  # or the rest of the body would be read to reuse the connection
                raise ObjectTooLarge(f"{key}: {size} bytes; {max_bytes} are allowed")
            data = response.read(max_bytes + 1, decode_content=False)
        except (HTTPError, OSError) as error:
            raise _BodyBroken(f"{key}: the object store closed the connection while sending it: {error}") from error
        finally:
            response.release_conn()
        if len(data) > max_bytes:
            response.close()
            raise ObjectTooLarge(f"{key}: more than the {max_bytes} bytes allowed")
        if size >= 0 and len(data) != size:
            raise _BodyBroken(f"{key}: the object store sent {len(data)} of {size} bytes")
        return data

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Write the object; readers see the old one or the new one, never a part."""
        return self._put(key, io.BytesIO(data), len(data), content_type)

    def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Write the object from a file, in parts of 64 MiB when it is larger than that.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            return self._put(key, file, path.stat().st_size, content_type)

    def _put(self, key: str, stream: BinaryIO, size: int, content_type: str) -> ObjectInfo:
        with self._errors(key):
            done = self._client.put_object(
                self.bucket,
                key,
                stream,
                size,
                content_type=content_type,
                part_size=_PART_BYTES,
                num_parallel_uploads=1,  # one part in memory, and an error that is not lost in a thread
            )
        return ObjectInfo(key, size, (done.etag or "").strip('"'))

    def copy(self, key: str, to: str) -> None:
        """Copy the object within the store; its bytes do not come here.

        Raises:
            ObjectMissing: there is none.
        """
        with self._errors(key):
            self._client.copy_object(self.bucket, to, CopySource(self.bucket, key))

    def stat(self, key: str) -> ObjectInfo | None:
        """Size and ETag of the object, or `None` when there is none."""
        try:
            with self._errors(key):
                found = self._client.stat_object(self.bucket, key)
        except ObjectMissing:
            return None
        return ObjectInfo(key, found.size or 0, (found.etag or "").strip('"'))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, however deep, in key order."""
        with self._errors(prefix):
            for found in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                if not found.is_dir:
                    yield ObjectInfo(found.object_name or "", found.size or 0, (found.etag or "").strip('"'))

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly under `prefix` that have objects below them: `incoming/` gives the labs."""
        with self._errors(prefix):
            for found in self._client.list_objects(self.bucket, prefix=prefix, recursive=False):
                if found.is_dir:
                    yield (found.object_name or "")[len(prefix) :].rstrip("/")

    def delete(self, key: str) -> None:
        """Remove the object; it is not an error if there is none."""
        with self._errors(key):
            self._client.remove_object(self.bucket, key)

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        with self._errors(self.bucket):
            if self._client.bucket_exists(self.bucket):
                return
            try:
                self._client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":  # another process was quicker
                    raise

    def check(self) -> None:
        """Write, read and delete a probe object: proves the bucket and all three rights.

        Raises:
            StoreRefused: a right is missing, or what came back is not what was written.
        """
        key = probe_key()
        content = uuid.uuid4().bytes
        self.put(key, content)
        try:
            if self.get(key, max_bytes=1024) != content:
                raise StoreRefused(f"bucket {self.bucket}: a probe object was read back altered")
        finally:
            self.delete(key)

    def keep_versions(self) -> None:
        """Have the bucket keep what is overwritten or deleted."""
        with self._errors(self.bucket):
            self._client.set_bucket_versioning(self.bucket, VersioningConfig(ENABLED))

    def keeps_versions(self) -> bool:
        """Whether the bucket keeps what is overwritten or deleted."""
        with self._errors(self.bucket):
            return self._client.get_bucket_versioning(self.bucket).status == ENABLED

    def subscribe_to_manifests(self, arn: str) -> None:
        """Have the store announce every new `incoming/…/manifest.json` to the queue or webhook named by `arn`.

        Other subscriptions of the bucket are kept.
        """
        ours = QueueConfig(
            queue=arn,
            events=["s3:ObjectCreated:*"],
            config_id=_SUBSCRIPTION_ID,
            prefix_filter_rule=PrefixFilterRule(INCOMING),
            suffix_filter_rule=SuffixFilterRule(MANIFEST_SUFFIX),
        )
        with self._errors(self.bucket):
            there = self._client.get_bucket_notification(self.bucket)
            others = [config for config in there.queue_config_list if config.config_id != _SUBSCRIPTION_ID]
            self._client.set_bucket_notification(
                self.bucket,
                NotificationConfig(
                    cloud_func_config_list=there.cloud_func_config_list,
                    queue_config_list=[*others, ours],
                    topic_config_list=there.topic_config_list,
                ),
            )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (S3Error, ServerError, InvalidResponseError) as error:
            raise self._translated(what, _Answer.of(error)) from error
        except HTTPError as error:
            raise StoreUnavailable(f"{what}: the object store cannot be reached: {error}") from error
        except MinioException as error:
            raise StoreRefused(f"{what}: {error}") from error

    def _translated(self, what: str, answer: "_Answer") -> MorphbatchError:
        if answer.code in _MISSING_CODES:
            return ObjectMissing(f"{what}: no such object in bucket {self.bucket}")
        code = answer.code
        if answer.status == 403 and answer.skew_s is not None and abs(answer.skew_s) > _MOST_SKEW_S:
            code = "RequestTimeTooSkewed"  # an answer to HEAD has no body that could say so
        waits = answer.status >= 500 or answer.status == 429
        kind, advice = _REFUSALS.get(code, (StoreUnavailable, "") if waits else (StoreRefused, "check MORPHBATCH_S3_*"))
        said = f"{what}: the object store answers {answer.status} {answer.code}".rstrip()
        if kind is StoreClockDiffers and answer.skew_s is not None:
            said += f": its clock is {answer.skew_s:+.0f} s off this machine's"
        return kind(f"{said} (bucket {self.bucket}){f'; {advice}' if advice else ''}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that is an error. `skew_s`: how far its clock is ahead of ours, where it says."""

    status: int
    code: str
    skew_s: float | None = None

    @classmethod
    def of(cls, error: S3Error | ServerError | InvalidResponseError) -> Self:
        if isinstance(error, S3Error):
            return cls(error.response.status, error.code or "", _skew_s(error.response.headers.get("Date")))
        if isinstance(error, ServerError):
            return cls(error.status_code, "")
        # The SDK reads no error that is sent as text/xml, as rclone does, but it keeps the body.
        found = re.search(r"<Code>(\w+)</Code>", error._body or "")
        return cls(error._code, found[1] if found else "")


def _skew_s(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


class _BodyBroken(StoreUnavailable):
    """The connection was lost inside an object's body: worth asking for the object once more."""


def connect_store(settings: Settings) -> ObjectStore:
    """The store that the settings name. Nothing is sent yet; make it after a fork, never before.

    Raises:
        StoreRefused: the endpoint is not an http(s) URL of a host.
    """
    return ObjectStore(make_client(settings, "s3_endpoint"), settings.s3_bucket)


def make_client(settings: Settings, setting: str) -> Minio:
    """The SDK's client with the service's key, for the endpoint in the setting of that name.

    Raises:
        StoreRefused: the endpoint is not an http(s) URL of a host.
    """
    endpoint = getattr(settings, setting)
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
        raise StoreRefused(f"{variable(setting)} {endpoint!r} is not like http://host:port")
    http = urllib3.PoolManager(
        maxsize=16,
        timeout=Timeout(connect=3, read=20),
        retries=Retry(
            total=3,
            read=1,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,  # the last answer itself says more than "too many 503"
            respect_retry_after_header=False,  # MinIO may ask for two minutes; the task waits, not the connection
        ),
    )
    try:
        return Minio(
            url.netloc,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=url.scheme == "https",
            region=settings.s3_region,
            http_client=http,
        )
    except ValueError as error:
        raise StoreRefused(f"{variable(setting)} {endpoint!r}: {error}") from error
