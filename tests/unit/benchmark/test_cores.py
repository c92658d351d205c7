"""Whose processor time is whose while something is measured."""

import subprocess
import sys

import pytest

from services.benchmark.cores import Cores

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
THEN_WAIT = "print(flush=True)\ntime.sleep(30)"


def test_a_services_time_is_its_own_and_that_of_an_ended_child_is_the_benchmarks() -> None:
    service = subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.5) + THEN_WAIT], stdout=subprocess.PIPE)
    try:
        cores = Cores({"service": service.pid})
        subprocess.run([sys.executable, "-c", BURN.format(seconds=0.3)], check=True)
        assert service.stdout is not None
        service.stdout.readline()
        spent = cores.spent()
    finally:
        service.kill()
        service.communicate()
    assert spent["service"] == pytest.approx(0.5, abs=0.15)
    assert 0.25 <= spent["benchmark"] < 0.45
    assert min(spent.values()) > -0.1
