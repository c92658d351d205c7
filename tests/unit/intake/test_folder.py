"""A folder of images as a batch."""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from services.intake.folder import UnusableFolder, read_folder
from services.intake.problems import ManifestRejected


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name.encode())


def _problems(folder: Path, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(ManifestRejected) as raised:
        read_folder(folder, **options)
    return [(p.path, p.reason) for p in raised.value.problems]


def test_a_sub_folder_is_a_slide(tmp_path: Path) -> None:
    night = tmp_path / "Night 1"
    _write(night, "S-10/f10.jpg", "S-10/f2.JPG", "S-2/a b.png", "S-2/notes.txt", ".hidden", "S-2/.x.jpg")
    (night / "empty").mkdir()
    delivery = read_folder(night, lab="berlin", um_per_px=0.1)
    manifest = delivery.manifest
    assert [(s.slide_id, s.specimen, s.replicate, s.stain, s.um_per_px) for s in manifest.slides] == [
        ("S-2", "S-2", 1, "unknown", 0.1),
        ("S-10", "S-10", 1, "unknown", 0.1),
    ]
    assert [f.key for s in manifest.slides for f in s.fields] == ["S-2/a b.png", "S-10/f2.JPG", "S-10/f10.jpg"]
    left_out = [entry.path.relative_to(night).as_posix() for entry in delivery.left_out]
    assert left_out == [".hidden", "S-2/.x.jpg", "S-2/notes.txt", "empty"]
    assert not any(entry.lost for entry in delivery.left_out)
    first = delivery.files[0]
    content = b"content of S-2/a b.png"
    assert (first.path, first.size) == (night / "S-2" / "a b.png", len(content))
    assert first.sha256 == manifest.slides[0].fields[0].sha256 == hashlib.sha256(content).hexdigest()
    assert first.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert delivery.size == sum(file.size for file in delivery.files)


def test_images_directly_in_the_folder_are_one_slide(tmp_path: Path) -> None:
    _write(tmp_path / "S-7F3A", "1.jpg", "2.tif")
    delivery = read_folder(tmp_path / "S-7F3A", lab="berlin", um_per_px=0.1, stain="giemsa", batch_id="n-1")
    assert delivery.manifest.batch_id == "n-1"
    [slide] = delivery.manifest.slides
    assert (slide.slide_id, slide.stain) == ("S-7F3A", "giemsa")
    assert [f.key for f in slide.fields] == ["S-7F3A/1.jpg", "S-7F3A/2.tif"]


def test_the_same_folder_is_the_same_batch_and_another_scale_is_not(tmp_path: Path) -> None:
    night = tmp_path / "Nacht Größe"
    _write(night, "a/1.jpg")
    batch = read_folder(night, lab="berlin", um_per_px=0.1).manifest.batch_id
    assert batch.startswith("nacht-grosse-")
    assert read_folder(night, lab="berlin", um_per_px=0.1).manifest.batch_id == batch
    assert read_folder(night, lab="berlin", um_per_px=0.2).manifest.batch_id != batch
    _write(night, "a/2.jpg")
    assert read_folder(night, lab="berlin", um_per_px=0.1).manifest.batch_id != batch


def test_bytes_are_counted_while_checksums_are_taken(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.jpg", "a/2.jpg")
    counted: list[int] = []
    delivery = read_folder(tmp_path, lab="berlin", batch_id="n", um_per_px=0.1, advance=counted.append)
    assert sum(counted) == delivery.size


def test_all_problems_of_a_folder_at_once(tmp_path: Path) -> None:
    _write(tmp_path / "n", "Anna Schmidt/1.jpg", "b/1987-03-12.jpg")
    assert _problems(tmp_path / "n", batch_id="Night") == [
        ("lab", "manifest_bad_value"),
        ("batch_id (n)", "manifest_bad_value"),
        ("slides[0].slide_id (Anna-Schmidt)", "personal_data"),
        ("slides[0].specimen (Anna-Schmidt)", "personal_data"),
        ("slides[0].um_per_px (Anna-Schmidt)", "um_per_px_missing"),
        ("slides[0].fields[0].key (Anna-Schmidt/1.jpg)", "personal_data"),
        ("slides[1].um_per_px (b)", "um_per_px_missing"),
        ("slides[1].fields[0].key (b/1987-03-12.jpg)", "personal_data"),
    ]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UnusableFolder, match="no such folder"):
        read_folder(tmp_path / "x", lab="berlin", um_per_px=0.1)
    _write(tmp_path, "notes.txt")
    with pytest.raises(UnusableFolder, match="no image"):
        read_folder(tmp_path, lab="berlin", um_per_px=0.1)


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with a manifest of its own, as `morphbatch smears` writes it."""
    _write(tmp_path, "s1/a.png", "s1/b.png", "s2/c.png", "truth.json")
    digest = hashlib.sha256(b"content of s1/a.png").hexdigest()
    slides = [
        {
            "slide_id": "s1",
            "specimen": "S-1",
            "replicate": 1,
            "stain": "diff-quik",
            "um_per_px": 0.1,
            "fields": [{"key": "s1/a.png", "sha256": digest, "cells": [{"box": [0, 0, 5, 5]}]}, {"key": "s1/b.png"}],
        },
        {
            "slide_id": "s2",
            "specimen": "S-1",
            "replicate": 2,
            "stain": "giemsa",
            "um_per_px": 0.2,
            "fields": [{"key": "s2/c.png", "kind": "crop"}],
        },
    ]
    document = {"schema": "morphbatch.manifest/1", "lab": "oslo", "batch_id": "drawn", "slides": slides}
    return tmp_path, document


def test_a_manifest_in_the_folder_is_used(described: tuple[Path, dict[str, Any]]) -> None:
    folder, document = described
    (folder / "manifest.json").write_text(json.dumps(document))
    delivery = read_folder(folder)
    manifest = delivery.manifest
    assert (manifest.lab, manifest.batch_id) == ("oslo", "drawn")
    assert [(s.specimen, s.replicate, s.stain, s.um_per_px) for s in manifest.slides] == [
        ("S-1", 1, "diff-quik", 0.1),
        ("S-1", 2, "giemsa", 0.2),
    ]
    assert manifest.slides[0].fields[0].cells is not None
    assert manifest.slides[1].fields[0].kind == "crop"
    assert manifest.slides[1].fields[0].sha256 == hashlib.sha256(b"content of s2/c.png").hexdigest()
    assert [e.path.name for e in delivery.left_out] == ["truth.json"]
    overridden = read_folder(
        folder, lab="berlin", batch_id="n-2", um_per_px=0.3, stain="shorr", collected_at="2026-11-23T08:40:00+01:00"
    ).manifest
    assert (overridden.lab, overridden.batch_id) == ("berlin", "n-2")
    collected = datetime.fromisoformat("2026-11-23T08:40:00+01:00")
    assert {(s.um_per_px, s.stain, s.collected_at) for s in overridden.slides} == {(0.3, "shorr", collected)}


def test_the_time_of_collection_is_given_for_all_slides_or_stated_for_each(
    described: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, document = described
    times = ("2026-11-23T08:40:00+01:00", "2026-11-23T09:15:00+01:00")
    for slide, at in zip(document["slides"], times, strict=True):
        slide["collected_at"] = at
    (folder / "manifest.json").write_text(json.dumps(document))
    stated = [slide.collected_at for slide in read_folder(folder).manifest.slides]
    assert stated == [datetime.fromisoformat(at) for at in times]
    (folder / "manifest.json").unlink()
    (folder / "truth.json").unlink()
    given = read_folder(folder, lab="oslo", um_per_px=0.1, collected_at=times[0]).manifest
    assert {slide.collected_at for slide in given.slides} == {stated[0]}
    assert {slide.collected_at for slide in read_folder(folder, lab="oslo", um_per_px=0.1).manifest.slides} == {None}
    with pytest.raises(ManifestRejected) as refused:
        read_folder(folder, lab="oslo", um_per_px=0.1, collected_at="2026-11-23 08:40")
    assert [problem.message for problem in refused.value.problems] == [
        "must be a time with its offset, like 2026-11-23T08:40:00+01:00"
    ] * 2


def test_files_that_are_not_as_the_manifest_says(described: tuple[Path, dict[str, Any]]) -> None:
    folder, document = described
    document["slides"][0]["fields"].append({"key": "s1/missing.png"})
    document["slides"][0]["fields"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(document))
    assert _problems(folder) == [
        ("slides[0].fields[0].sha256 (s1/a.png)", "checksum_mismatch"),
        ("slides[0].fields[2].key (s1/missing.png)", "field_missing"),
    ]


def test_a_manifest_that_leaves_the_folder_is_not_followed(described: tuple[Path, dict[str, Any]]) -> None:
    folder, document = described
    document["slides"][0]["fields"][1]["key"] = "../../etc/passwd"
    (folder / "manifest.json").write_text(json.dumps(document))
    assert _problems(folder) == [("slides[0].fields[1].key (../../etc/passwd)", "field_outside_batch")]


@pytest.mark.parametrize("content", ["{", "[]", '{"slides": 7}', '{"slides": [3, {"fields": [4, {"key": 5}]}]}'])
def test_a_manifest_in_the_folder_that_is_none(tmp_path: Path, content: str) -> None:
    _write(tmp_path, "a.jpg")
    (tmp_path / "manifest.json").write_text(content)
    assert _problems(tmp_path, lab="berlin", batch_id="n")
