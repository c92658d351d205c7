"""What lies beside and below the images of a folder: nothing is lost silently, nothing is invented."""

import json
import os
from pathlib import Path

import pytest

from services.intake.folder import read_folder
from services.intake.problems import ManifestRejected
from services.intake.tree import read_tree

JPEG = b"\xff\xd8\xff\xe0 and so on"


def write(folder: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def slides(folder: Path, **options: bool) -> dict[str, list[str]]:
    manifest = read_folder(folder, lab="berlin", um_per_px=0.1, **options).manifest
    return {slide.slide_id: [field.key for field in slide.fields] for slide in manifest.slides}


def lost(folder: Path) -> dict[str, str]:
    with pytest.raises(ManifestRejected) as raised:
        read_folder(folder, lab="berlin", um_per_px=0.1)
    assert {problem.reason for problem in raised.value.problems} == {"image_left_out"}
    return {problem.path: problem.message for problem in raised.value.problems}


@pytest.mark.parametrize(
    "beside",
    [
        *(".ipynb_checkpoints/f-checkpoint.jpg", ".@__thumb/s800f.jpg", ".AppleDouble/f.jpg", "__MACOSX/._f.jpg"),
        *("@eaDir/f.jpg/SYNOPHOTO_THUMB_XL.jpg", "$RECYCLE.BIN/f.jpg", "#recycle/f.jpg", "S-1/.thumbnails/f.jpg"),
        *(
            "S-1/@eaDir/f.jpg",
            "S-1/._f.jpg",
            "lost+found/f.jpg",
            ".Trash-1000/files/f.jpg",
            "System Volume Information/f.jpg",
        ),
    ],
)
def test_what_systems_leave_beside_images_is_listed_and_no_slide(tmp_path: Path, beside: str) -> None:
    write(tmp_path, "S-1/f.jpg", beside)
    assert slides(tmp_path) == {"S-1": ["S-1/f.jpg"]}
    [entry] = read_tree(tmp_path).left_out
    assert (entry.path, entry.lost) == (tmp_path / beside, False)


def test_images_all_in_one_folder_deeper_are_the_slides(tmp_path: Path) -> None:
    write(tmp_path, "slide-1/f1.jpg", "slide-2/Images/f1.jpg", "slide-2/Images/f2.jpg", "slide-3/a/b/f1.jpg")
    assert slides(tmp_path) == {
        "slide-1": ["slide-1/f1.jpg"],
        "slide-2": ["slide-2/f1.jpg", "slide-2/f2.jpg"],
        "slide-3": ["slide-3/f1.jpg"],
    }


def test_images_at_two_depths_stop_the_submission_by_name(tmp_path: Path) -> None:
    write(tmp_path, "slide-1/f1.jpg", "slide-1/more/f2.jpg", "S/a/1.jpg", "S/b/1.jpg")
    found = lost(tmp_path)
    assert sorted(found) == ["S/a/1.jpg", "S/b/1.jpg", "slide-1/more/f2.jpg"]
    assert slides(tmp_path, without_lost=True) == {"slide-1": ["slide-1/f1.jpg"]}


def test_every_ending_of_a_jpeg_is_taken(tmp_path: Path) -> None:
    write(tmp_path, *(f"s/f{n}{ending}" for n, ending in enumerate((".jpg", ".jpe", ".jfif", ".JPEG", ".dib", ".TIF"))))
    assert len(slides(tmp_path)["s"]) == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s/.f.jpg.icloud", "in the cloud"), ("s/f.jpg.lnk", "shortcut"), ("s/f.tif.gpg", "decrypt"),
        ("s/IMG_4.HEIC", "HEIF"), ("s/scan.svs", "program's own format"), ("s/f.jpg.part", "unfinished"),
        ("s/f.tif.crdownload", "unfinished"), ("s/upload.tmp", "unfinished"), ("s/field", "without an image suffix"),
        ("s/f.jpg_original", "without an image suffix"), ("s/night.zip", "archive"), ("s/a.CR2", "raw image"),
        ("s/a.webp", "web"), ("film.avi", "video"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_taken_stops_the_submission_by_name(tmp_path: Path, name: str, said: str) -> None:
    write(tmp_path, "s/f1.jpg", name)
    found = lost(tmp_path)
    assert list(found) == [name]
    assert said in found[name]
    assert slides(tmp_path, without_lost=True) == {"s": ["s/f1.jpg"]}


def test_links_that_lead_nowhere_or_back(tmp_path: Path) -> None:
    write(tmp_path, "s/f1.jpg")
    (tmp_path / "s" / "f2.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "s" / "again").symlink_to(tmp_path / "s", target_is_directory=True)
    assert list(lost(tmp_path)) == ["s/f2.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_stops_the_submission(tmp_path: Path) -> None:
    write(tmp_path, "s/f1.jpg", "closed/f1.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        assert "cannot be read" in lost(tmp_path)["closed"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_an_unlistable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "s/f1.jpg", "closed/f1.jpg")
    scandir = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "Permission denied" in lost(tmp_path)["closed"]


def test_names_of_other_scripts_are_transliterated(tmp_path: Path) -> None:
    write(tmp_path, "Проба 1/f.jpg", "Şeker-ı/f.jpg", "Größe/f.jpg")
    assert sorted(slides(tmp_path)) == ["Grosse", "Proba-1", "Seker-i"]


def test_two_folders_of_one_name_are_both_named(tmp_path: Path) -> None:
    write(tmp_path, "Probe ä/f.jpg", "Probe a/f.jpg")
    with pytest.raises(ManifestRejected) as raised:
        read_folder(tmp_path, lab="berlin", um_per_px=0.1)
    [problem] = raised.value.problems
    assert problem.path == "Probe ä"
    assert "'Probe a'" in problem.message


def test_images_that_the_folders_manifest_does_not_name_stop_the_submission(tmp_path: Path) -> None:
    write(tmp_path, "s/f1.jpg", "s/f2.jpg")
    slide = {"slide_id": "s", "specimen": "s", "replicate": 1, "stain": "shorr", "um_per_px": 0.1}
    document = {"schema": "morphbatch.manifest/1", "lab": "berlin", "batch_id": "n-1"}
    whole = {**document, "slides": [{**slide, "fields": [{"key": "s/f1.jpg"}]}]}
    (tmp_path / "manifest.json").write_text(json.dumps(whole))
    assert list(lost(tmp_path)) == ["s/f2.jpg"]
    assert slides(tmp_path, without_lost=True) == {"s": ["s/f1.jpg"]}


def test_an_empty_folder_and_a_link_to_a_slide_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "s-1/f.jpg")
    (tmp_path / "s-2").mkdir()
    (tmp_path / "s-3").symlink_to("s-1")
    (tmp_path / "s-1" / "again").symlink_to("..")
    assert slides(tmp_path) == {"s-1": ["s-1/f.jpg"]}
    told = {entry.path.relative_to(tmp_path).as_posix(): entry.why for entry in read_tree(tmp_path).left_out}
    assert told == {
        "s-2": "an empty folder",
        "s-3": "a link to a folder that is read already",
        "s-1/again": "a link to a folder that is read already",
    }
