"""The settings of the embedded stack, from the environment; and the service's settings that point at such a stack."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.documents import describe
from services.errors import ConfigurationError
from services.local.installation import Installation
from services.local.service import CHECKOUT
from services.settings import HOME_VARIABLE, PREFIX, Settings


class LocalSettings(BaseSettings):
    """What only the embedded stack and the tools around it read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    minio: Path | None = Field(default=None, description="The MinIO binary; default: on PATH, or that of `make minio`.")
    triton_env: Path | None = Field(default=None, description="Triton's environment; default: .venv-triton here.")
    triton_form: str | None = Field(
        default=None,
        description="Compiled form of the release that Triton serves; default: openvino-int8 where the release has it,"
        " else openvino-fp32.",
    )


def home() -> Path:
    """The data folder of the embedded stack: `MORPHBATCH_HOME`, else `.morphbatch` in the checkout, else XDG's.

    Raises:
        ConfigurationError: `MORPHBATCH_HOME` names a file, or the home of nobody.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        try:
            folder = Path(named).expanduser().absolute()
        except RuntimeError as error:  # ~somebody, who is not known here
            raise ConfigurationError(f"{HOME_VARIABLE} {named}: {error}") from error
        if folder.exists() and not folder.is_dir():
            raise ConfigurationError(f"{HOME_VARIABLE} {folder} is not a folder")
        return folder
    if (CHECKOUT / "pyproject.toml").exists():
        return CHECKOUT / ".morphbatch"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "morphbatch"


def load_local_settings() -> LocalSettings:
    """The settings of the embedded stack.

    Raises:
        ConfigurationError: a value is malformed; the message names each.
    """
    try:
        return LocalSettings()
    except ValidationError as error:
        raise ConfigurationError(f"{PREFIX}*: {describe(error, 'settings')}") from error


def settings_of(installation: Installation, environment: Mapping[str, str] | None = None) -> Settings:
    """The service's settings as a process of this stack has them that runs in `environment`.

    As in such a process, a variable of the environment wins over the installation's own.
    """
    variables = {**installation.environment(), **(environment or {})}
    named = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if name.startswith(PREFIX)}
    return Settings.model_validate({name: value for name, value in named.items() if name in Settings.model_fields})
