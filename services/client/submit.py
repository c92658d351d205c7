"""Sends the files of a batch over HTTP: announced, uploaded side by side, committed."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from services.client.client import BatchState, Client, Upload
from services.errors import ConfigurationError

_PARALLEL: Final = 4


class TokenUnreadable(ConfigurationError):
    """The file of a token cannot be read, or holds something else."""

    reason = "token_unreadable"


def read_token(path: Path) -> str:
    """The token that a file holds.

    Raises:
        TokenUnreadable: it cannot be read, or does not hold one alone.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenUnreadable(f"{path} cannot be read as a token: {type(error).__name__}") from error
    if not text.startswith("mbt_") or len(text.split()) != 1 or not text.isascii():
        raise TokenUnreadable(f"{path} must hold a token alone, as `morphbatch lab token` prints it")
    return text


def send_folder(
    client: Client,
    manifest: Mapping[str, Any],
    files: Mapping[str, tuple[Path, int]],
    advance: Callable[[int], None] = lambda _: None,
) -> BatchState:
    """Send a batch; if interrupted, call again. `files`: path and size in bytes of each field, by its key.

    Raises:
        Refused: with what is wrong.
        Unreachable: the service or its store is down.
        OSError: a file cannot be read.
    """
    slides = [
        {**slide, "fields": [{**field, "size": files[field["key"]][1]} for field in slide["fields"]]}
        for slide in manifest["slides"]
    ]
    announced = client.announce({**manifest, "slides": slides})

    def send(upload: Upload) -> None:
        path, size = files[upload.key]
        client.upload(upload, path)
        advance(size)

    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        done, _ = wait([pool.submit(send, upload) for upload in announced.uploads], return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)
    for future in done:
        future.result()
    return client.commit(announced.batch_id)
