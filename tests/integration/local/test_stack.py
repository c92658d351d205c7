"""The supervisor keeps its promises: readiness, restarts, clean ends, no orphan, kept ports."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
import redis

from services.local.control import change_services, is_running, read_state, start_stack, stop_stack
from services.local.installation import INFRASTRUCTURE, ROLES, load_installation
from services.local.supervisor import StartFailed
from services.storage import connect_store
from tests.conftest import Stack, chosen_s3, clean_environment
from tests.places import CHECKOUT
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Postgres, Redis and S3 only; a test leaves them running."""
    home = tmp_path_factory.mktemp("it's 100 % für #1 $HOME")
    running = Stack(home, clean_environment(home), "rclone")
    up(running)
    yield running
    stop_stack(home)


def up(stack: Stack) -> bool:
    """Start it; whether it ran already."""
    return start_stack(stack.home, INFRASTRUCTURE, stack.s3, environment=stack.environment)[1]


def processes_of(home: Path) -> list[str]:
    """Command lines of every process that has anything to do with `home`, other than this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is not ours
        if int(folder.name) != os.getpid() and str(home).encode() in command + environment:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def wait_until_gone(home: Path, seconds: float = 25) -> None:
    try:
        wait_until(lambda: not is_running(home) and not processes_of(home), seconds)
    except AssertionError as error:
        raise AssertionError(f"still there: {processes_of(home)}") from error


def test_all_three_servers_do_their_work(base: Stack) -> None:
    connection = psycopg2.connect(base.settings.database_url.replace("+psycopg2", ""))
    connection.cursor().execute("create temporary table probe ()")
    connection.close()
    assert redis.Redis.from_url(base.settings.broker_url).ping()
    connect_store(base.settings).check()


def test_minio_serves_s3_where_it_is_found(tmp_path: Path) -> None:
    stack = Stack(tmp_path, clean_environment(tmp_path), chosen_s3("minio"))
    assert start_stack(tmp_path, ["s3"], "minio", environment=stack.environment)[0]["s3"] == "minio"
    connect_store(stack.settings).check()
    stop_stack(tmp_path)
    with pytest.raises(StartFailed, match="kept by minio"):
        start_stack(tmp_path, ["s3"], "rclone", environment=stack.environment)


def test_servers_ask_for_their_keys(base: Stack) -> None:
    settings = base.settings
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(settings.database_url.replace("+psycopg2", ""), password="wrong")
    installation = load_installation(base.home)
    assert installation
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=installation.ports["redis"]).ping()
    assert (base.home / "stack.env").stat().st_mode & 0o077 == 0


def exposed(home: Path) -> dict[str, list[str]]:
    """Where a secret of the stack stands that others may read: command lines of this machine, logs, what it reports."""
    installation = load_installation(home)
    assert installation
    places = [*Path("/proc").glob("[0-9]*/cmdline"), *(home / "logs").iterdir(), home / "stack.json"]
    texts = {}
    for place in places:
        with suppress(FileNotFoundError, ProcessLookupError):  # a process that ended meanwhile
            texts[str(place)] = place.read_bytes().decode(errors="replace")
    assert any("postgres" in text for place, text in texts.items() if place.endswith("cmdline"))
    found = {
        name: [place for place, text in texts.items() if secret in text]
        for name, secret in installation.secrets.items()
    }
    return {name: places for name, places in found.items() if places}


def test_no_secret_stands_in_a_command_line_or_a_log(stack: Stack) -> None:
    assert stack.run_cli("doctor").returncode == 0
    assert exposed(stack.home) == {}


def test_a_postgres_that_logs_every_statement_logs_no_password(base: Stack) -> None:
    administer(base, "alter system set log_statement = 'all'")
    base.stop("postgres")
    base.start("postgres")
    log = (base.home / "logs" / "postgres.log").read_text()
    assert log.count("login password 'SCRAM-SHA-256$4096:") == len(ROLES)
    assert exposed(base.home) == {}
    administer(base, "alter system reset log_statement")
    base.stop("postgres")
    base.start("postgres")


def administer(stack: Stack, statement: str) -> None:
    """Run a statement as the superuser."""
    installation = load_installation(stack.home)
    assert installation
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=installation.ports["postgres"],
        user="postgres",
        password=installation.secrets["postgres_superuser"],
    )
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def test_a_second_up_adopts_what_runs(base: Stack) -> None:
    before = base.state()
    assert up(base) is True
    assert base.state() == before


def test_a_killed_service_is_started_again(base: Stack) -> None:
    for service in ("redis", "postgres"):
        old = base.pid(service)
        base.kill(service)
        wait_until(lambda s=service, o=old: base.state()["services"][s]["pid"] not in (o, None), what=service)
        base.wait_until_ready(service)
        assert base.state()["services"][service]["restarts"] >= 1
    assert redis.Redis.from_url(base.settings.broker_url).ping()


def test_one_service_can_be_stopped_and_started(base: Stack) -> None:
    base.stop("redis")
    assert base.state()["services"]["redis"]["state"] == "down"
    assert base.state()["services"]["postgres"]["state"] == "ready"
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(base.settings.broker_url).ping()
    base.start(*INFRASTRUCTURE)
    assert redis.Redis.from_url(base.settings.broker_url).ping()


def test_down_stops_everything_and_up_comes_back_with_ports_keys_and_data(base: Stack) -> None:
    before = load_installation(base.home)
    connect_store(base.settings).put("results/kept", b"kept")
    assert stop_stack(base.home) is True
    assert not is_running(base.home)
    assert processes_of(base.home) == []
    assert read_state(base.home)["state"] == "down"
    assert stop_stack(base.home) is False
    assert up(base) is False
    assert load_installation(base.home) == before
    assert connect_store(base.settings).get("results/kept", max_bytes=9) == b"kept"


@pytest.mark.parametrize("victim", ["supervisor", "guard"])
def test_a_killed_supervisor_leaves_no_orphan(base: Stack, victim: str) -> None:
    os.kill(base.state()[victim], signal.SIGKILL)
    wait_until_gone(base.home)
    assert read_state(base.home)["state"] == "down"
    assert up(base) is False


def test_the_whole_stack_goes_with_its_supervisor(stack: Stack) -> None:
    assert any("triton_python_backend_stub" in command for command in processes_of(stack.home))
    os.kill(stack.state()["supervisor"], signal.SIGKILL)
    wait_until_gone(stack.home)
    start_stack(stack.home, environment=stack.environment)


def test_both_supervisor_and_guard_killed_at_once_leave_no_orphan(base: Stack) -> None:
    state = base.state()
    for victim in ("guard", "supervisor"):
        os.kill(state[victim], signal.SIGKILL)
    wait_until_gone(base.home)
    assert up(base) is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_a_foreground_up_stops_all(base: Stack, number: signal.Signals) -> None:
    stop_stack(base.home)
    command = [sys.executable, "-m", "services.cli.main", "up", "--foreground", *INFRASTRUCTURE]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=dict(base.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell's background job ignores SIGINT and hands that down; the stack would be right to ignore it too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as foreground:
        wait_until(lambda: base.state()["state"] == "ready")
        foreground.send_signal(number)
        foreground.wait(30)
    wait_until_gone(base.home)
    assert up(base) is False


def test_a_service_that_does_not_come_up_shows_the_end_of_its_log(base: Stack) -> None:
    stop_stack(base.home)
    configuration = base.home / "postgres" / "data" / "postgresql.auto.conf"
    kept = configuration.read_text()
    configuration.write_text(kept + "no_such_parameter = 1\n")
    try:
        with pytest.raises(StartFailed, match=r"postgres did not start(.|\n)*no_such_parameter"):
            up(base)
        wait_until_gone(base.home)
        assert "no_such_parameter" in read_state(base.home)["error"]
    finally:
        configuration.write_text(kept)
    assert up(base) is False


def test_a_taken_port_is_given_up_for_another(tmp_path: Path) -> None:
    import socket

    stack = Stack(tmp_path, clean_environment(tmp_path), "rclone")
    start_stack(tmp_path, ["redis"], "rclone", environment=stack.environment)
    stop_stack(tmp_path)
    before = load_installation(tmp_path)
    assert before
    with socket.create_server(("127.0.0.1", before.ports["redis"])):
        start_stack(tmp_path, ["redis"], environment=stack.environment)
        after = load_installation(tmp_path)
        stop_stack(tmp_path)
    assert after
    assert after.ports["redis"] != before.ports["redis"]
    assert {**after.ports, "redis": 0} == {**before.ports, "redis": 0}


def test_status_as_json(base: Stack) -> None:
    told = json.loads(base.run_cli("status", "--json").stdout)
    assert told["state"] == "ready"
    assert set(told["services"]) == set(INFRASTRUCTURE)
    assert told["services"]["redis"].keys() >= {"state", "pid", "port", "uptime_s", "restarts"}


def test_a_service_nobody_knows_is_refused(base: Stack) -> None:
    from services.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="kafka"):
        change_services(base.home, start=["kafka"])


def test_adopting_a_service_that_hangs_says_so(base: Stack) -> None:
    os.kill(base.pid("redis"), signal.SIGSTOP)
    try:
        with pytest.raises(StartFailed, match="redis runs and does not answer"):
            up(base)
    finally:
        os.kill(base.pid("redis"), signal.SIGCONT)
    assert up(base) is True
