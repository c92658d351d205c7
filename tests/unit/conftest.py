"""The unit tier: no servers, so no sockets. Made-up inputs are the same in every run; `make fuzz` makes up others."""

from hypothesis import HealthCheck, settings
from pytest_socket import disable_socket

# No deadline: how long an example takes depends on the machine.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("quick", _UNHURRIED, max_examples=100, derandomize=True, database=None)
settings.register_profile("fuzz", _UNHURRIED, max_examples=5_000, print_blob=True)
settings.load_profile("quick")


def pytest_runtest_setup() -> None:
    """Any socket is an error here; pytest-socket gives them back after each test."""
    disable_socket()
