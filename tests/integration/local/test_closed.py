"""What a stack keeps from others on its machine: rights, files, memory, ports; and that closed folders suffice it."""

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.local.control import is_running
from services.local.installation import load_installation
from services.local.triton import find_environment
from tests.conftest import Stack, clean_environment
from tests.places import CHECKOUT

SERVERS = ("postgres", "redis", "s3", "triton")


def processes(stack: Stack, *services: str) -> Iterator[psutil.Process]:
    """The processes of these services, and what they started."""
    for service in services:
        first = psutil.Process(stack.pid(service))
        yield from (first, *first.children(recursive=True))


def status(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_servers_have_no_rights_beyond_an_ordinary_users(stack: Stack) -> None:
    for process in processes(stack, *SERVERS):
        told = status(process)
        uids = set(told["Uid"].split())
        assert len(uids) == 1
        assert "0" not in uids, process.cmdline()
        assert {name: int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
            ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
        )
        assert told["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert told["Groups"].strip() == ""


def test_everything_listens_on_this_machine_only(stack: Stack) -> None:
    listening = [
        (service, connection.laddr)
        for service in stack.state()["services"]
        for process in processes(stack, service)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or not connection.raddr
    ]
    assert {service for service, _ in listening} >= {*SERVERS, "api"}
    for service, address in listening:
        ip = ipaddress.ip_address(address.ip)
        assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, f"{service} listens on {address}"


def test_the_data_folder_and_the_networks_memory_are_closed(stack: Stack) -> None:
    installation = load_installation(stack.home)
    assert installation
    memory = list(Path("/dev/shm").glob(f"morphbatch-{installation.plain_name}-*"))  # noqa: S108
    assert memory
    assert [path for path in (stack.home, *memory) if path.stat().st_mode & 0o077] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("uid", [4242, 65534])
def test_a_stranger_reads_nothing_of_it_nor_does_another_process_of_the_servers_user(stack: Stack, uid: int) -> None:
    for path in ("", "s3", "postgres/data", "logs/worker.log", "stack.env", "triton/repository"):
        assert (stack.home / path).exists()
        # From beside it: the folder above is pytest's own, which alone would keep strangers out.
        asked = subprocess.run(
            ["ls", "-l", f"{stack.home.name}/{path}"],
            cwd=stack.home.parent, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert asked.stdout == ""
        assert "Permission denied" in asked.stderr


@pytest.fixture(scope="module")
def closed_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with its environments in a folder that is closed to others and has an odd name."""
    name = "Mein Labor ü, it's 100 % #1"
    if os.geteuid() == 0:
        name += " $HOME"  # an ordinary user's initdb hands its own path to a shell, where a dollar has a meaning
    folder = tmp_path_factory.mktemp("root") / name
    folder.mkdir(mode=0o700)
    for name in ("services", "worker", "triton_models", "migrations"):
        shutil.copytree(CHECKOUT / name, folder / name, copy_function=link)
    for name, source in ((".venv", Path(sys.prefix)), (".venv-triton", find_environment(None).folder.resolve())):
        shutil.copytree(source, folder / name, symlinks=True, copy_function=link)
    (folder / "pyproject.toml").touch()
    yield folder
    shutil.rmtree(folder)  # thousands of files


def link(source: str, target: str) -> None:
    """What is not changed can be shared, where the file system is the same."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def test_the_stack_runs_from_a_closed_folder_with_an_odd_name(closed_checkout: Path) -> None:
    home = closed_checkout / ".morphbatch"
    environment = clean_environment(home)
    del environment["MORPHBATCH_HOME"]

    def morphbatch(*arguments: str) -> str:
        done = subprocess.run(
            [str(closed_checkout / ".venv" / "bin" / "python"), "-m", "services.cli.main", *arguments],
            cwd=closed_checkout, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        morphbatch("up")
        running = json.loads(morphbatch("status", "--json"))["services"]
        assert {service["state"] for service in running.values()} == {"ready"}
        morphbatch("up")  # what runs is asked whether it answers
        if os.geteuid() == 0:
            assert 0 not in {psutil.Process(running[name]["pid"]).uids().real for name in SERVERS}
        assert closed_checkout.stat().st_mode & 0o777 == 0o700
    finally:
        morphbatch("down")
    assert not is_running(home)
