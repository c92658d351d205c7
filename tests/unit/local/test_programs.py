"""What the servers' user cannot reach is linked where that user can, and what nobody runs any more goes."""

import os
from pathlib import Path

import pytest

from services.local import programs
from services.local.launch import _give
from services.local.programs import program_within_reach, within_reach

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
NOBODY = 65534


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs go, with none held."""
    folder = tmp_path / "lib" / "programs"
    monkeypatch.setattr(programs, "_PROGRAMS", folder)
    monkeypatch.setattr(programs, "_held", {})
    return folder


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder of programs below one that is closed to others, whose own umask was tight."""
    folder = tmp_path / "Mein Labor ü" / "programs"
    (folder / "lib" / "site-packages").mkdir(parents=True)
    for name, mode in (("server", 0o755), ("lib/private", 0o600), ("lib/site-packages/left", 0o644)):
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
    (folder / "lib" / "alias").symlink_to("private")
    (tmp_path / "Mein Labor ü").chmod(0o700)
    (folder / "lib").chmod(0o700)
    return folder


def held() -> None:
    for descriptor in programs._held.values():
        os.close(descriptor)
    programs._held.clear()


def test_what_everybody_reaches_stays_where_it_is() -> None:
    assert program_within_reach(Path("/bin/sh")) == "/bin/sh"
    assert within_reach({"sh": Path("/bin/sh"), "not installed": Path("/bin/no such program")}) is None


def test_the_tree_can_be_read_by_everybody_and_nothing_was_opened(trees: Path, closed: Path) -> None:
    tree = within_reach({"its/programs": closed})
    assert tree
    assert tree.parent == trees
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == {"its/programs/server", "its/programs/lib/private", "its/programs/lib/alias"}
    assert all(path.stat().st_mode & 0o004 and not path.is_symlink() for path in (tree, *tree.rglob("*")))
    assert (tree / "its/programs/server").samefile(closed / "server")
    assert (tree / "its/programs/lib/private").read_text() == "lib/private"
    assert (closed / "lib/private").stat().st_mode & 0o077 == 0
    assert closed.parent.stat().st_mode & 0o077 == 0


def test_a_tree_is_made_once_and_again_for_other_programs(trees: Path, closed: Path) -> None:
    first = program_within_reach(closed / "server")
    assert program_within_reach(closed / "server") == first
    (closed / "server").unlink()
    (closed / "server").write_text("another version")
    second = program_within_reach(closed / "server")
    assert Path(second).read_text() == "another version"
    assert Path(first).exists(), "a server may still run from it"
    held()
    third = program_within_reach(closed / "lib" / "private")
    assert {path for path in trees.iterdir() if path.is_dir()} == {Path(third).parent}


def test_a_servers_folder_becomes_its_own_whatever_was_put_there(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    (folder / "minio" / "bucket").mkdir(parents=True)
    (folder / "minio" / "bucket" / "object").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    (folder / "link").symlink_to(elsewhere)
    _give(str(folder), NOBODY, NOBODY)
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {NOBODY}
    assert elsewhere.stat().st_uid == 0
    (folder / "password").touch()
    _give(str(folder), NOBODY, NOBODY)
    assert (folder / "password").stat().st_uid == NOBODY
