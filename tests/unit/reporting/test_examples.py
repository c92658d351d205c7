"""docs/examples: the messages of a drawn night are those that its report gives."""

import subprocess
import sys
from pathlib import Path

from tests.places import CHECKOUT

EXAMPLES = CHECKOUT / "docs" / "examples"


def test_the_messages_are_those_that_the_command_makes_of_the_report(tmp_path: Path) -> None:
    made = [sys.executable, "-m", "services.reporting.messages", str(EXAMPLES / "report.json"), str(tmp_path)]
    subprocess.run([*made, "--lab-tests"], check=True, cwd=CHECKOUT)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written
    stored = {path.name: path.read_bytes() for path in EXAMPLES.iterdir() if path.name != "report.json"}
    assert written == stored


def test_a_command_makes_nothing_of_a_demonstration_for_a_lab_that_does_not_test(tmp_path: Path) -> None:
    made = [sys.executable, "-m", "services.reporting.messages", str(EXAMPLES / "report.json"), str(tmp_path)]
    subprocess.run(made, check=True, cwd=CHECKOUT)
    assert not list(tmp_path.iterdir())
