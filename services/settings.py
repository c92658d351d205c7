"""Every setting of the service, read in this one place from the environment.

A value comes from the environment (`MORPHBATCH_DATABASE_URL`), a secret also from a file that the environment names
(`MORPHBATCH_DATABASE_URL_FILE`, as Kubernetes mounts one); else from the file `stack.env` in the folder that
`MORPHBATCH_HOME` names, where the embedded stack writes how its servers are reached; else from the default here.
What only the embedded stack reads is in `services.local.settings`.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.documents import describe, read_text, why
from services.errors import ConfigurationError
from services.production import DEVELOPMENT_SECRET, SECRETS, unsafe_secrets

PREFIX: Final = "MORPHBATCH_"
HOME_VARIABLE: Final = f"{PREFIX}HOME"
STACK_FILE: Final = "stack.env"
_ADDRESS: Final = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/]+):\d{1,5}$"


def variable(setting: str) -> str:
    """The variable of the environment that holds a setting."""
    return f"{PREFIX}{setting.upper()}"


class _SecretFiles(PydanticBaseSettingsSource):
    """The secrets that the environment names files for."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The one line of its file; None where no file is named.

        Raises:
            ConfigurationError: the file cannot be read, or the secret is given twice.
        """
        del field
        named = f"{variable(field_name)}_FILE"
        path = os.environ.get(named) if field_name in SECRETS else None
        if not path:
            return None, field_name, False
        if variable(field_name) in os.environ:
            raise ConfigurationError(f"{variable(field_name)} and {named} are both set: keep one of them")
        lines = _lines(named, Path(path))
        return lines[0] if lines else "", field_name, False

    def __call__(self) -> dict[str, Any]:
        """Those that are named."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _lines(named: str, path: Path) -> list[str]:
    try:
        lines = read_text(path, ConfigurationError).splitlines()
    except ConfigurationError as error:
        raise ConfigurationError(f"{named}: {error}") from error
    if len(lines) > 1:
        raise ConfigurationError(f"{named}: {path} must hold the secret alone, on one line")
    return lines


class Settings(BaseSettings):
    """The service's settings; unknown `MORPHBATCH_*` keys in `stack.env` are an error."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    environment: Literal["development", "production"] = Field(
        "development", description="In production, secrets that are empty or known to everybody are refused."
    )

    database_url: str = Field(
        "postgresql+psycopg2://morphbatch_service@127.0.0.1:5432/morphbatch",
        repr=False,
        description="SQLAlchemy URL of Postgres, with the service's role.",
    )
    migration_url: str | None = Field(
        None,
        repr=False,
        description="The same with the owner's role, for `morphbatch migrate` only; default: database_url.",
    )
    analyst_url: str | None = Field(
        None,
        repr=False,
        description="The same with a role that only reads schema reporting, for `morphbatch sql`.",
    )
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis, the Celery broker. It carries hints only."
    )

    s3_endpoint: str = Field("http://127.0.0.1:9000", description="URL of the object store (MinIO or any S3).")
    s3_public_endpoint: str | None = Field(
        None, description="URL of the same store as labs reach it; presigned URLs name it. Default: s3_endpoint."
    )
    s3_region: str = Field("us-east-1", description="Region name used in signatures.")
    s3_bucket: str = Field("morphbatch", description="The one bucket: incoming/, results/, releases/.")
    s3_access_key: str = Field(DEVELOPMENT_SECRET, repr=False, description="Access key of the object store.")
    s3_secret_key: SecretStr = Field(SecretStr(DEVELOPMENT_SECRET), description="Secret key of the object store.")

    triton_endpoint: str = Field(
        "127.0.0.1:8001",
        pattern=_ADDRESS,
        description="host:port of Triton's gRPC service.",
    )
    inference_batch: int = Field(16, ge=1, le=256, description="Most crops in one request to Triton.")
    inference_in_flight: int = Field(4, ge=1, le=64, description="Most requests to Triton at once, per worker process.")
    inference_timeout_s: float = Field(120.0, gt=0, description="Deadline of one request to Triton, seconds.")

    api_host: str = Field("127.0.0.1", description="Address at which the HTTP service is asked.")
    api_port: int = Field(8080, ge=1, le=65535, description="Port of the HTTP service (bucket events, health).")
    api_requests_per_second: float = Field(
        20.0, gt=0, description="Requests a second that a token may make of one process of the HTTP service."
    )
    webhook_token: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Bearer token that the object store sends with bucket events."
    )

    log_format: Literal["text", "json"] = Field(
        "text", description="How workers and the HTTP service write their logs: for people, or JSON for a collector."
    )
    metrics_address: str | None = Field(
        None,
        pattern=_ADDRESS,
        description="host:port at which a worker answers Prometheus; default: it does not. PROMETHEUS_MULTIPROC_DIR"
        " must then name a folder that no other worker has.",
    )

    heartbeat_file: Path | None = Field(
        None, description="File that a worker touches while it takes work, and beat while it publishes; for probes."
    )

    worker_concurrency: int = Field(2, ge=1, le=64, description="Slides analysed at once by one worker.")
    sweep_seconds: int = Field(60, ge=1, description="How often the sweep looks for work that no hint announced.")
    dispatch_seconds: int = Field(5, ge=1, description="How often queued slides that are due are published.")
    republish_seconds: int = Field(
        300,
        ge=1,
        description="A batch without its report is announced again after this; a worker asks for a slide so long.",
    )
    max_attempts: int = Field(4, ge=1, description="Attempts at a slide before it is quarantined.")
    retry_base_seconds: float = Field(2.0, gt=0, description="First delay before a retry; it doubles, with jitter.")
    retry_cap_seconds: float = Field(300.0, gt=0, description="Longest delay before a retry.")
    outage_delay_seconds: float = Field(10.0, gt=0, description="Delay before a slide is tried again after an outage.")
    lease_seconds: int = Field(60, ge=3, description="A running slide whose lease is older than this is taken over.")
    task_time_limit_s: int = Field(1800, ge=10, description="A slide that runs longer is killed and tried again.")
    soft_shutdown_seconds: int = Field(30, ge=0, description="A stopping worker gives its slides this long to end.")
    visibility_timeout_s: int = Field(3600, ge=20, description="Redis redelivers an unacknowledged message after this.")

    language: Literal["en", "tr"] = Field("en", description="Language of the class names in tables and pictures.")

    max_field_bytes: int = Field(64 * 2**20, ge=1, description="A larger field file is refused unread.")
    max_field_pixels: int = Field(60_000_000, ge=1, description="A field with more pixels is refused undecoded.")
    minimum_cells: int = Field(
        200,
        ge=1,
        description="A slide with fewer classified cells ends `insufficient`; 200 are what the WHO manual asks for.",
    )

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        if self.task_time_limit_s >= self.visibility_timeout_s:
            raise ValueError(
                "task_time_limit_s must be below visibility_timeout_s, or Redis hands out a slide that still runs"
            )
        if self.environment == "production" and (
            unsafe := unsafe_secrets(self._secrets(), self.model_fields_set, variable)
        ):
            raise ValueError(f"in production: {'; '.join(unsafe)}")
        return self

    def _secrets(self) -> dict[str, str | None]:
        values = {name: getattr(self, name) for name in SECRETS}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where a value comes from, the first that has one wins."""
        del file_secret_settings  # a folder whose files are named like the settings
        return init_settings, env_settings, _SecretFiles(settings_cls), dotenv_settings


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: a value is missing, malformed or unsafe, or `stack.env` is unreadable; names each.
    """
    kept = _stack_file()
    try:
        return Settings(_env_file=kept)  # type: ignore[call-arg]  # pydantic-settings' own keyword
    except ValidationError as error:
        raise ConfigurationError(f"{PREFIX}* or {kept or STACK_FILE}: {describe(error, 'settings')}") from error
    except OSError as error:
        raise ConfigurationError(f"{kept}: {why(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{kept} is not a text file") from error


def _stack_file() -> Path | None:
    home = os.environ.get(HOME_VARIABLE)
    try:
        return Path(home).expanduser() / STACK_FILE if home else None
    except RuntimeError as error:  # ~somebody, who is not known here
        raise ConfigurationError(f"{HOME_VARIABLE} {home}: {error}") from error
