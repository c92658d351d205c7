"""What the embedded stack keeps between runs: its folder, its ports and its generated secrets."""

import hashlib
import json
import os
import random
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.atomic import write_text
from services.errors import ConfigurationError
from services.settings import STACK_FILE

S3Flavour = Literal["minio", "rclone"]

SERVICES: Final = ("postgres", "redis", "s3", "triton", "control", "beat", "api", "worker")
INFRASTRUCTURE: Final = ("postgres", "redis", "s3")

_METRICS_PORTS: Final = ("worker_metrics", "control_metrics", "triton_metrics")
PORT_NAMES: Final = ("postgres", "redis", "s3", "triton_grpc", "api", *_METRICS_PORTS)
# Roles of `migrations/roles.sql`, each with its password under its own name.
OWNER, SERVICE, ANALYST = ROLES = ("morphbatch_owner", "morphbatch_service", "morphbatch_analyst")
SECRET_NAMES: Final = ("postgres_superuser", *ROLES, "redis", "s3", "webhook")

# Below the kernel's ephemeral ports (32768 and up by default): an outgoing connection must not take a port of ours
# while its server restarts.
_FIRST_PORT, _LAST_PORT = 15_000, 32_000


class HomeDamaged(ConfigurationError):
    """A file that the stack keeps in its home is not what the stack wrote."""

    reason = "home_damaged"


@dataclass(frozen=True, slots=True)
class Installation:
    """One home of the stack: the folder, the ports on 127.0.0.1 and the secrets that its servers use."""

    home: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    s3_flavour: S3Flavour

    @property
    def logs(self) -> Path:
        """Folder of the servers' logs, one file each."""
        return self.home / "logs"

    @property
    def plain_name(self) -> str:
        """What this home is called where its path may not stand: a word that no other home has, of digits and a–f."""
        return hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    @property
    def state_file(self) -> Path:
        """The supervisor's report of itself: states, pids, restarts."""
        return self.home / "stack.json"

    def database_url(self, role: str) -> str:
        """SQLAlchemy URL of the database for one of `ROLES`."""
        return f"postgresql+psycopg2://{role}:{self.secrets[role]}@127.0.0.1:{self.ports['postgres']}/morphbatch"

    def environment(self) -> dict[str, str]:
        """The `MORPHBATCH_*` variables that point a process at this stack."""
        ports, keys = self.ports, self.secrets
        return {
            "MORPHBATCH_DATABASE_URL": self.database_url(SERVICE),
            "MORPHBATCH_MIGRATION_URL": self.database_url(OWNER),
            "MORPHBATCH_ANALYST_URL": self.database_url(ANALYST),
            "MORPHBATCH_BROKER_URL": f"redis://:{keys['redis']}@127.0.0.1:{ports['redis']}/0",
            "MORPHBATCH_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3']}",
            "MORPHBATCH_S3_ACCESS_KEY": "morphbatch",
            "MORPHBATCH_S3_SECRET_KEY": keys["s3"],
            "MORPHBATCH_TRITON_ENDPOINT": f"127.0.0.1:{ports['triton_grpc']}",
            "MORPHBATCH_API_PORT": str(ports["api"]),
            "MORPHBATCH_WEBHOOK_TOKEN": keys["webhook"],
        }

    def save(self) -> None:
        """Write `installation.json` and `stack.env`, in a folder that is closed to everybody else.

        Raises:
            ConfigurationError: the folder is somebody else's, who alone can close it.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            self.home.chmod(0o700)
        except PermissionError as error:
            raise ConfigurationError(
                f"{self.home} belongs to another user and cannot be closed to others: choose another MORPHBATCH_HOME"
            ) from error
        self.logs.mkdir(exist_ok=True)
        document = {"ports": dict(self.ports), "secrets": dict(self.secrets), "s3_flavour": self.s3_flavour}
        write_text(self.home / "installation.json", json.dumps(document, indent=2) + "\n", private=True)
        lines = [f"{name}={value}\n" for name, value in self.environment().items()]
        write_text(self.home / STACK_FILE, "# Written by `morphbatch up`.\n" + "".join(lines), private=True)


def load_installation(home: Path) -> Installation | None:
    """The installation kept in `home`, or None where none was made yet.

    Raises:
        HomeDamaged: `installation.json` is there and cannot be read.
        ConfigurationError: an earlier version wrote it.
    """
    kept = _read(home)
    if kept is not None and not (kept.secrets.keys() >= set(SECRET_NAMES) and kept.ports.keys() >= set(PORT_NAMES)):
        raise ConfigurationError(
            f"{home} was made by an earlier version of morphbatch: `morphbatch down`, then `morphbatch up` completes it"
        )
    return kept


def _read(home: Path) -> Installation | None:
    """As kept; passwords and ports that an earlier version did not have are absent."""
    path = home / "installation.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Installation(
            home=home,
            ports={
                name: int(document["ports"][name])
                for name in PORT_NAMES
                if name not in _METRICS_PORTS or name in document["ports"]
            },
            secrets={
                name: str(document["secrets"][name])
                for name in SECRET_NAMES
                if name not in ROLES or name in document["secrets"]
            },
            s3_flavour=document["s3_flavour"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeDamaged(
            f"{path} cannot be read ({error!r}); the secrets of this home's servers are in it: restore it, "
            f"or move {home} away and start over"
        ) from error


def prepare_installation(home: Path, s3_flavour: S3Flavour | None, minio_available: bool) -> Installation:
    """The installation of `home`, made at the first call. Ports are kept as long as nobody else took them.

    What an earlier version did not keep is added.

    Call it only while the stack does not run. The S3 server of a home never changes, since its objects would be gone:
    `s3_flavour` None means the home's own, and for a new home MinIO where its binary is found.

    Raises:
        ConfigurationError: another flavour is asked for than the home has.
    """
    kept = _read(home)
    if kept is None:
        flavour: S3Flavour = s3_flavour or ("minio" if minio_available else "rclone")
        kept = Installation(
            home=home,
            ports=_free_ports({}),
            secrets={},
            s3_flavour=flavour,
        )
    elif s3_flavour not in (None, kept.s3_flavour):
        raise ConfigurationError(
            f"the objects of {home} are kept by {kept.s3_flavour}; for {s3_flavour} start with another MORPHBATCH_HOME"
        )
    keys = {name: kept.secrets.get(name) or secrets.token_urlsafe(24) for name in SECRET_NAMES}
    installation = Installation(home, _free_ports(kept.ports), keys, kept.s3_flavour)
    installation.save()
    return installation


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # Without it a port whose last connection is in TIME_WAIT would count as taken; a listener still refuses us.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(kept: Mapping[str, int]) -> dict[str, int]:
    ports: dict[str, int] = {name: port for name, port in kept.items() if port_is_free(port)}
    candidates = iter(random.sample(range(_FIRST_PORT, _LAST_PORT), 2000))
    for name in PORT_NAMES:
        while name not in ports:
            port = next(candidates)
            if port not in ports.values() and port_is_free(port):
                ports[name] = port
    return {name: ports[name] for name in PORT_NAMES}
