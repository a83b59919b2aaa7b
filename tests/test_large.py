"""Large pictures: tile by tile the same labels, in files that say the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import ovseg
from ovseg.batch import find_images, segment_files
from ovseg.commands.run import main
from ovseg.large import segment_large
from ovseg.large_segmentation import LargeSegmentation
from ovseg.modeling import DensePrediction
from ovseg.modeling.segmentor import Encoding
from ovseg.predictor import Predictor
from ovseg.readers import rasters
from ovseg.segmentation import Segmentation
from ovseg.utils.files import sweep_partials
from ovseg.utils.rasters import write_label_tiff
from ovseg.vocab import Vocabulary
from tests.helpers import ROOT, run_python
from tests.modeling.tiny import FixedScores
from tests.readers.test_rasters import write

SAMPLE = ROOT / "demo" / "samples" / "scene_0041.jpg"
WORDS = ["red", "green", "blue"]


class ColourModel(FixedScores):
    """Says of each pixel how red, green and blue it is; other classes are nowhere."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0))
        self.sizes: list[tuple[int, ...]] = []

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        pixels = encoding.inputs["image"].float() / 255
        self.sizes.append(tuple(pixels.shape[1:]))
        scores = torch.zeros(len(vocabulary), *pixels.shape[1:])
        scores[:3] = pixels
        return DensePrediction(scores, encoding.output_size)


def predictor() -> Predictor:
    return Predictor(model=ColourModel(), short_side=0, max_side=10**6)


def picture(height: int = 70, width: int = 50) -> np.ndarray:
    """Patches of colours, of which each pixel has one channel ahead."""
    rng = np.random.default_rng(height)
    patches = rng.integers(0, 3, (height // 5 + 1, width // 4 + 1)).repeat(5, 0).repeat(4, 1)
    pixels = rng.integers(1, 100, (height, width, 3), np.uint8)
    pixels[np.eye(3, dtype=bool)[patches[:height, :width]]] += 100
    return pixels


def test_one_tile_is_the_ordinary_result_bit_for_bit() -> None:
    model = ovseg.load("ovseg_tiny", device="cpu")
    plain = model.segment(SAMPLE, "tinyscapes")
    large = segment_large(model, SAMPLE, "tinyscapes", tile=512)
    np.testing.assert_array_equal(large.labels, plain.labels)
    np.testing.assert_array_equal(large.scores, plain.scores)
    assert large.to_coco_rle() == plain.to_coco_rle() and large.table() == plain.table()
    described, expected = large.to_dict(), plain.to_dict()
    assert described.pop("provenance")["tile"] == 512 and expected.pop("provenance")
    assert described == expected


def test_tiles_of_the_models_own_size_by_default() -> None:
    model = Predictor(model=ColourModel(), short_side=16, max_side=64)
    result = segment_large(model, picture(40, 40), WORDS)
    assert result.provenance["tile"] == 16 and set(model.model.sizes) == {(16, 16)}


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0.25), (20, 0.5), (33, 0.0), (64, 0.1)])
def test_labels_and_scores_do_not_depend_on_tiles(tile: int, overlap: float) -> None:
    pixels = picture()
    result = segment_large(predictor(), pixels, WORDS, tile=tile, overlap=overlap)
    np.testing.assert_array_equal(result.labels, pixels.argmax(-1))
    means = [pixels[..., k][pixels.argmax(-1) == k].mean() / 255 for k in range(3)]
    assert result.scores.tolist() == pytest.approx(means, abs=1e-6)


def test_run_lengths_areas_and_files_agree_with_the_labels(tmp_path: Path) -> None:
    pixels = picture()
    result = segment_large(predictor(), pixels, WORDS, tile=16, threshold=0.0)
    for entry, area in zip(result.to_coco_rle(), result.areas(), strict=True):
        mask = result.labels == entry["category_id"]
        np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), mask)
        assert entry["area"] == area.pixels == mask.sum() and area.name == entry["category_name"]
    files = result.save(tmp_path, stem="a", views=("overlay", "mask"))
    assert [file.name for file in files.values()] == [
        "a_labels.png", "a.json", "a_overlay.jpg", "a_mask.png",
    ]  # fmt: skip
    again = Segmentation.load(tmp_path / "a.json", image=pixels)
    np.testing.assert_array_equal(again.labels, result.labels)
    assert again.names == result.names and again.scores == pytest.approx(result.scores, abs=1e-6)
    result.save(tmp_path, stem="a")  # over its own earlier files
    (tmp_path / "b_labels.png").write_bytes(b"of somebody else")
    with pytest.raises(FileExistsError, match=r"b_labels\.png"):
        result.save(tmp_path, stem="b")


def test_a_class_below_the_threshold_loses_its_pixels() -> None:
    pixels = picture()
    plain = segment_large(predictor(), pixels, WORDS, tile=16)
    low = int(plain.scores.argmin())
    threshold = float(np.sort(plain.scores)[:2].mean())
    result = segment_large(predictor(), pixels, WORDS, tile=16, threshold=threshold)
    expected = np.where(plain.labels == low, 255, plain.labels)
    np.testing.assert_array_equal(result.labels, expected)
    assert result.scores[low] == 0 and "(no class)" in result.table()
    assert result.to_dict()["unlabelled_pixels"] == (plain.labels == low).sum() > 0
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected a score from 0 to 1"):
            segment_large(predictor(), pixels, WORDS, threshold=bad)


def test_many_classes_take_two_bytes_a_pixel() -> None:
    few, many = (
        segment_large(predictor(), picture(), [f"class {k}" for k in range(count)], tile=32)
        for count in (255, 256)
    )
    assert (few.labels.dtype, few.blank) == (np.uint8, 255)
    assert (many.labels.dtype, many.blank) == (np.uint16, 65535)
    np.testing.assert_array_equal(few.labels, many.labels)


def test_the_preview_takes_every_nth_pixel() -> None:
    pixels = picture()
    result = segment_large(predictor(), pixels, WORDS, tile=32)
    small = result.preview(max_side=24)
    np.testing.assert_array_equal(small.image, pixels[::3, ::3])
    np.testing.assert_array_equal(small.labels, pixels[::3, ::3].argmax(-1))
    assert small.labels.dtype == np.int32


def test_a_geotiff_by_windows_is_the_same_as_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = picture()
    path = write(tmp_path / "a.tif", pixels)
    read = rasters.GeoTiff.read
    sides: list[tuple[int, ...]] = []

    def spied(self: Any, window: Any) -> np.ndarray:
        sides.append(tuple(part.stop - part.start for part in window))
        return read(self, window)

    monkeypatch.setattr(rasters.GeoTiff, "read", spied)
    plain = segment_large(predictor(), pixels, WORDS, tile=16)
    result = segment_large(predictor(), path, WORDS, tile=16)
    assert set(sides) == {(16, 16)}
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_array_equal(result.scores, plain.scores)
    files = result.save(tmp_path / "out", stem="a", views=("overlay", "panel"))
    assert files["labels"].name == "a_labels.tif"
    with rasterio.open(path) as given, rasterio.open(files["labels"]) as stored:
        assert (stored.crs, stored.transform) == (given.crs, given.transform)
        assert (stored.nodata, stored.dtypes, stored.profile["tiled"]) == (255, ("uint8",), True)
        np.testing.assert_array_equal(stored.read(1), result.labels)
    assert json.loads(files["json"].read_text())["provenance"]["image"] == str(path)
    assert sorted(file.name for file in files["json"].parent.iterdir()) == [
        "a.json", "a_labels.tif", "a_overlay.jpg", "a_panel.jpg",
    ]  # fmt: skip


def test_pixels_that_hold_no_picture_are_blank_and_tiles_of_them_are_left_out(
    tmp_path: Path,
) -> None:
    pixels = picture(64, 64)
    pixels[:40, :20] = 0  # all of two tiles and parts of others
    model = predictor()
    result = segment_large(
        model, write(tmp_path / "a.tif", pixels, nodata=0), WORDS, tile=16, overlap=0
    )
    expected = pixels.argmax(-1)
    expected[:40, :20] = 255
    np.testing.assert_array_equal(result.labels, expected)
    assert len(model.model.sizes) == 16 - 2
    assert result.to_dict()["unlabelled_pixels"] == 800


def test_a_large_label_map_is_written_in_parts(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    labels = np.arange(1100, dtype=np.uint16)[:, None] + np.arange(3, dtype=np.uint16)
    place = rasters.Georeference(None, rasterio.Affine.identity())
    path = tmp_path / "new" / "a.tif"
    write_label_tiff(path, labels, blank=65535, georeference=place, comment="c")
    with rasterio.open(path) as stored:
        np.testing.assert_array_equal(stored.read(1), labels)
    assert [file.name for file in path.parent.iterdir()] == ["a.tif"]


# Enough for the header; for some of the labels; for all but the last that are written.
@pytest.mark.parametrize("room", [300, 50_000, 420_000])
def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path: Path, room: int) -> None:
    pytest.importorskip("rasterio")
    code = f"""
import resource, signal, sys
import numpy as np, rasterio
from ovseg.readers.rasters import Georeference
from ovseg.utils.rasters import write_label_tiff
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
labels = np.random.default_rng(0).integers(0, 255, (600, 700), np.uint8)
place = Georeference(None, rasterio.Affine.identity())
write_label_tiff(sys.argv[1], labels, blank=255, georeference=place, comment="c")
"""
    run = run_python("-c", code, str(tmp_path / "a.tif"))
    assert "a.tif: could not be written: " in run.stderr.splitlines()[-1]
    assert run.returncode == 1 and not list(tmp_path.iterdir())


def tiled(folder: Path, **options: Any) -> list[Any]:
    made = options.pop("predictor", None) or predictor()
    sources = find_images([folder])
    vocabulary = Vocabulary.make(WORDS)
    return list(segment_files(made, sources, vocabulary, folder, tile=16, **options))


def test_files_are_segmented_in_tiles_and_results_left_out_afterwards(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", picture())
    [first] = tiled(tmp_path)
    assert isinstance(first.segmentation, LargeSegmentation) and first.error is None
    assert "50 x 70" in first.describe() and "a_labels.tif" in first.describe()
    [again] = tiled(tmp_path)
    assert again.path == tmp_path / "a.tif" and again.error is None


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(ColourModel):
        def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
            if len(self.sizes) == 3:
                raise KeyboardInterrupt
            return super().decode(encoding, vocabulary)

    write(tmp_path / "a.tif", picture())
    made = Predictor(model=Interrupted(), short_side=0, max_side=10**6)
    with pytest.raises(KeyboardInterrupt):
        tiled(tmp_path, predictor=made)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"] and not sweep_partials(tmp_path)


def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path) -> None:
    whole = write(tmp_path / "b.tif", picture()).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    broken, fine = tiled(tmp_path)
    assert broken.error is not None and "a.tif: " in broken.error and fine.error is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tile", "0"], "at least 1, got 0"),
        (["--tile", "64", "--overlap", "0.6"], "a share from 0 to 0.5, got 0.6"),
        (["--overlap", "0.2"], "--overlap: expected it with --tile"),
        (["--tile", "64", "--proposals"], "--tile: expected it without --proposals"),
        (
            ["--tile", "64", "--export", "coco", "--min-region-area", "3"],
            "expected it without --min-region-area, --export",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(SAMPLE), "--output", str(tmp_path), *flags, "--names", "sky", "tree"]
    try:
        status = main(words)
    except SystemExit as end:  # of the parser
        status = end.code
    assert status == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_says_at_once_that_rasterio_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    words = ["segment", str(tmp_path / "a.tif"), "--names", "sky", "tree", "--tile", "64"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "pip install 'ovseg[geo]'" in capsys.readouterr().err


def test_the_command_segments_in_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--names", "sky", "grass", "castle", "--tile", "96", "--overlap", "0.5"]
    assert main(["segment", str(SAMPLE), "--output", str(tmp_path), *words]) == 0
    described = json.loads((tmp_path / "scene_0041.json").read_text())
    assert (described["provenance"]["tile"], described["provenance"]["overlap"]) == (96, 0.5)
    assert (tmp_path / "scene_0041_overlay.jpg").is_file()
    captured = capsys.readouterr()
    assert "1 of 1 segmented" in captured.out and "6/6" in captured.err
