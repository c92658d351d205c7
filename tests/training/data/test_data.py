"""Data sets as labs have them: misspelt, duplicated, leaking, broken."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from triton_models.training.config import Data, Fit, Preparation
from triton_models.training.data.check import check_data
from triton_models.training.data.dataset import DatasetBroken, fingerprint, read_dataset, resolve_classes
from triton_models.training.data.duplicates import seen_again
from triton_models.training.data.preparation import ImageUnreadable, prepare, read_image
from triton_models.training.data.splits import cut, fold_numbers
from triton_models.training.reports.check_page import write_check_page

COUNTS = {"train": {"normal": 8, "tapered": 6}, "val": {"normal": 4, "tapered": 4}}


def test_names_are_resolved_through_the_taxonomy_and_others_kept(tmp_path: Path) -> None:
    for spelling in ("RounHead", "NArrowAcrosome", "vacoulated_head", "non_sperm"):
        (tmp_path / spelling).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / spelling / "1.png")
    dataset = read_dataset(tmp_path)
    assert dataset.found_classes == ("NarrowAcrosome", "RoundHead", "VacuolatedHead", "non_sperm")
    assert resolve_classes(dataset, "found") == dataset.found_classes
    with pytest.raises(DatasetBroken, match="non_sperm"):
        resolve_classes(dataset, "taxonomy")


def test_a_csv_carries_specimen_stain_and_split(tmp_path: Path) -> None:
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient", "stain", "split"])
        rows.writerow(["a.png", "AssymetricNeck", "p1", "Diff-Quik", "train"])
    (image,) = read_dataset(tmp_path / "cells.csv").images
    assert (image.label, image.specimen, image.stain, image.split) == ("AsymmetricNeck", "p1", "Diff-Quik", "train")
    (tmp_path / "bad.csv").write_text("path,label\n,Normal\n")
    with pytest.raises(DatasetBroken, match="line 2"):
        read_dataset(tmp_path / "bad.csv")


def specimens(tmp_path: Path, count: int) -> Path:
    """A CSV of `count` specimens with 4 images each, two classes."""
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "specimen"])
        for number in range(count):
            for image in range(4):
                rows.writerow([f"{number}-{image}.png", ("Normal", "PinHead")[(number + image) % 2], f"s{number}"])
    return tmp_path / "cells.csv"


def test_folds_keep_specimens_together_and_classes_apart_evenly(tmp_path: Path) -> None:
    images = read_dataset(specimens(tmp_path, 20)).images
    numbers = fold_numbers(images, 5, seed=3)
    homes: dict[str | None, set[int]] = {}
    for image, number in zip(images, numbers, strict=True):
        homes.setdefault(image.specimen, set()).add(number)
    assert all(len(found) == 1 for found in homes.values())
    for fold in range(5):
        labels = [image.label for image, number in zip(images, numbers, strict=True) if number == fold]
        assert labels.count("Normal") == labels.count("PinHead") == 8
    assert numbers == fold_numbers(images, 5, seed=3)
    assert numbers != fold_numbers(images, 5, seed=4)


def test_a_cut_without_named_splits_holds_back_one_fold(tmp_path: Path) -> None:
    dataset = read_dataset(specimens(tmp_path, 20))
    train, held = cut(dataset, Data(path=tmp_path, folds=5, fold=2))
    assert len(train) == 64
    assert len(held) == 16
    assert not {image.specimen for image in train} & {image.specimen for image in held}


def test_a_specimen_on_both_sides_of_named_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("path,label,specimen,split\na.png,Normal,s1,train\nb.png,Normal,s1,val\n")
    with pytest.raises(DatasetBroken, match="s1"):
        cut(read_dataset(tmp_path / "cells.csv"), Data(path=tmp_path))


def test_the_check_finds_what_spoils_a_run(cells: Callable[..., Path], tmp_path: Path) -> None:
    root = cells(COUNTS)
    original = root / "train" / "normal" / "000.png"
    turned = cv2.rotate(cv2.imread(str(original)), cv2.ROTATE_90_CLOCKWISE)
    cv2.imwrite(str(root / "val" / "normal" / "copy.jpg"), turned, [cv2.IMWRITE_JPEG_QUALITY, 80])
    (root / "train" / "tapered" / "same.png").write_bytes(original.read_bytes())
    (root / "train" / "tapered" / "broken.png").write_bytes(original.read_bytes()[:200])
    found = check_data(root)

    pairs = {(twin.first, twin.second): twin for twin in found.twins}
    leak = pairs["train/normal/000.png", "val/normal/copy.jpg"]
    assert leak.leaks
    assert not leak.exact
    same = pairs["train/normal/000.png", "train/tapered/same.png"]
    assert same.exact
    assert same.contradicts
    assert list(found.unreadable) == ["train/tapered/broken.png"]
    assert len(found.faults) == 3
    assert found.document()["counts"]["Normal"] == {"train": 8, "val": 5}
    page = tmp_path / "page.html"
    write_check_page(found, page)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 16
    assert "http" not in text
    assert "train/tapered/broken.png" in text


def test_a_validation_cell_is_not_trained_on_in_another_shape(cells: Callable[..., Path]) -> None:
    root = cells(COUNTS)
    held = sorted((root / "val").rglob("*.png"))
    turned = cv2.flip(cv2.imread(str(held[2])), 1)
    copy = root / "train" / "normal" / "copy.jpg"
    cv2.imwrite(str(copy), turned, [cv2.IMWRITE_JPEG_QUALITY, 85])
    images = [*sorted((root / "train").rglob("*.png")), copy]
    assert seen_again(images, held) == {len(images) - 1}


def test_a_sound_data_set_has_no_faults(cells: Callable[..., Path]) -> None:
    assert check_data(cells(COUNTS)).faults == []


def test_the_fingerprint_follows_content_and_class_not_names(cells: Callable[..., Path]) -> None:
    root = cells(COUNTS)
    before = fingerprint(read_dataset(root).images)
    (root / "train" / "normal" / "000.png").rename(root / "train" / "normal" / "renamed.png")
    assert fingerprint(read_dataset(root).images) == before
    (root / "train" / "normal" / "renamed.png").rename(root / "train" / "tapered" / "renamed.png")
    assert fingerprint(read_dataset(root).images) != before


@pytest.mark.parametrize("size", [(40, 90), (300, 120), (64, 64)])
@pytest.mark.parametrize("fit", list(Fit))
def test_any_shape_becomes_the_square(fit: Fit, size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 200, np.uint8)
    how = Preparation(fit=fit, view_px=64, side_px=32)
    assert prepare(pixels, how).shape == (32, 32, 3)
    assert prepare(pixels, how, margin=1.25).shape == (40, 40, 3)
    assert (prepare(pixels, how) == 200).all()


def test_a_margin_shows_more_around_the_same_crop() -> None:
    rng = np.random.default_rng(0)
    pixels = cv2.GaussianBlur(rng.integers(0, 255, (160, 160, 3), np.uint8), (0, 0), 4)
    how = Preparation(fit=Fit.VIEW, view_px=64, side_px=32)
    inner = prepare(pixels, how, margin=1.25)[4:36, 4:36].astype(int)
    assert np.abs(inner - prepare(pixels, how).astype(int)).mean() < 2


def test_an_image_that_is_none_names_itself(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(ImageUnreadable, match=r"x\.png"):
        read_image(tmp_path / "x.png")
