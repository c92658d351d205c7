"""The unit tier: no servers, so no sockets."""

from pytest_socket import disable_socket


def pytest_runtest_setup() -> None:
    """Any socket is an error here; pytest-socket gives them back after each test."""
    disable_socket()
