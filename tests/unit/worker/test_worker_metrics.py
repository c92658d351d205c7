"""A worker that serves metrics has a folder of its own for its processes, and forgets those of an earlier run."""

import os
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.metrics import FOLDER_VARIABLE
from services.settings import Settings
from worker.metrics import begin, require_folder


def test_an_address_without_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    require_folder(Settings.model_validate({}))
    served = Settings.model_validate({"metrics_address": "0.0.0.0:9100"})
    with pytest.raises(ConfigurationError, match=FOLDER_VARIABLE):
        require_folder(served)
    monkeypatch.setenv(FOLDER_VARIABLE, "/anywhere")
    require_folder(served)


def test_the_files_of_an_earlier_run_are_removed_and_those_of_this_process_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    own = f"counter_{os.getpid()}.db"
    for name in (own, f"counter_9{os.getpid()}.db", "gauge_max_7.db", "kept.txt"):
        (tmp_path / name).touch()
    begin()
    assert {path.name for path in tmp_path.iterdir()} == {own, "kept.txt"}
