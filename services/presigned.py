"""URLs of the object store that a lab uses without a key: each is for one object, one method and a short time.

They are signed for the endpoint at which the lab reaches the store, since its host is part of the signature. Signing
sends nothing.
"""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import SplitResult, quote

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.helpers import queryencode
from minio.signer import (
    SIGN_V4_ALGORITHM,
    _get_canonical_request_hash,
    _get_scope,
    _get_signature,
    _get_signing_key,
    _get_string_to_sign,
)
from minio.time import to_amz_date

from services.settings import Settings
from services.storage import make_client

_UNSIGNED: Final = "UNSIGNED-PAYLOAD"  # of a presigned request; the checksum stands in a signed header instead


@dataclass(frozen=True, slots=True)
class UploadUrl:
    """Where an object is PUT, and the headers to be sent with it as they are, beside the Content-Length that it has."""

    url: str
    headers: dict[str, str]


class UrlSigner:
    """Signs URLs of one bucket."""

    def __init__(self, client: Minio, bucket: str, region: str, credentials: Credentials) -> None:
        self._client = client
        self._bucket = bucket
        self._region = region
        self._credentials = credentials

    def put(self, key: str, *, size: int, sha256: str, seconds: int) -> UploadUrl:
        """A URL by which this content alone can be put at `key`.

        Size and checksum are signed headers: with others the signature does not fit. MinIO and S3 compare the checksum
        with what arrives too; a server that does not know `x-amz-checksum-sha256` leaves that to the worker.
        """
        headers = {"x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(sha256)).decode()}
        now = datetime.now(UTC)
        scope = _get_scope(now, self._region, "s3")
        names = ";".join(sorted({*headers, "content-length", "host"}))
        url = self._client._base_url.build(
            method="PUT",
            region=self._region,
            bucket_name=self._bucket,
            object_name=key,
            query_params={
                "X-Amz-Algorithm": SIGN_V4_ALGORITHM,
                "X-Amz-Credential": f"{self._credentials.access_key}/{scope}",
                "X-Amz-Date": to_amz_date(now),
                "X-Amz-Expires": str(seconds),
                "X-Amz-SignedHeaders": names,
            },
        )
        signed = {**headers, "content-length": str(size), "host": url.netloc}
        request_hash, _ = _get_canonical_request_hash("PUT", url, signed, _UNSIGNED)
        signing_key = _get_signing_key(self._credentials.secret_key, now, self._region, "s3")
        signature = _get_signature(signing_key, _get_string_to_sign(now, scope, request_hash))
        query = f"{url.query}&X-Amz-Signature={queryencode(str(signature))}"
        parts = SplitResult(url.scheme, url.netloc, url.path, query, "")
        return UploadUrl(parts.geturl(), headers)

    def get(self, key: str, *, seconds: int) -> str:
        """A URL by which the object can be read, and saved under the last part of its name."""
        name = quote(key.rpartition("/")[2])
        return self._client.get_presigned_url(
            "GET",
            self._bucket,
            key,
            expires=timedelta(seconds=seconds),
            response_headers={"response-content-disposition": f"attachment; filename*=UTF-8''{name}"},
        )


def connect_signer(settings: Settings) -> UrlSigner:
    """Signs for the public endpoint of the settings; where none is named, for the one that the service uses.

    Raises:
        StoreRefused: the endpoint is not an http(s) URL of a host.
    """
    setting = "s3_endpoint" if settings.s3_public_endpoint is None else "s3_public_endpoint"
    credentials = Credentials(settings.s3_access_key, settings.s3_secret_key.get_secret_value())
    return UrlSigner(make_client(settings, setting), settings.s3_bucket, settings.s3_region, credentials)
