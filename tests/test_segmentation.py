from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.modeling.prediction import Proposal
from ovseg.segmentation import Segmentation


def make_segmentation(**changes: object) -> Segmentation:
    """Six by four pixels: 0 "sky" on the left half, 2 "tree" in a corner, blank elsewhere."""
    labels = np.full((4, 6), -1, np.int32)
    labels[:, :3] = 0
    labels[2:, 4:] = 2
    parts: dict[str, object] = {
        "image": np.full((4, 6, 3), 90, np.uint8),
        "labels": labels,
        "names": ("sky", "road", "tree"),
        "scores": np.array([0.75, 0.0, 0.5], np.float32),
        "provenance": {"weights": {"name": "w"}},
    }
    return Segmentation(**{**parts, **changes})  # type: ignore[arg-type]


def test_areas_are_sorted_and_leave_absent_classes_out() -> None:
    areas = make_segmentation().areas()
    assert [(a.label, a.name, a.pixels) for a in areas] == [(0, "sky", 12), (2, "tree", 4)]
    assert areas[0].share == pytest.approx(0.5)
    assert areas[1].score == pytest.approx(0.5)


def test_mask_of_a_name_and_of_an_unknown_name() -> None:
    result = make_segmentation()
    assert result.mask("tree").sum() == 4
    assert result.mask("road").sum() == 0
    with pytest.raises(ValueError, match=r"one of \['sky', 'road', 'tree'\], got 'car'"):
        result.mask("car")


def test_coco_rle_decodes_to_the_labels() -> None:
    result = make_segmentation()
    entries = result.to_coco_rle()
    for entry in entries:
        decoded = coco_mask.decode(entry["segmentation"]).astype(bool)
        assert (decoded == (result.labels == entry["category_id"])).all()
        assert decoded.sum() == entry["area"]
    assert entries[1]["bbox"] == [4, 2, 2, 2]
    assert entries[1]["category_name"] == "tree"
    json.dumps(entries)


def test_label_map_has_eight_bits_and_blank_255() -> None:
    label_map, blank = make_segmentation().label_map()
    assert label_map.dtype == np.uint8 and blank == 255
    assert label_map[0].tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize(
    ("count", "dtype", "blank"), [(255, np.uint8, 255), (256, np.uint16, 65535)]
)
def test_label_map_grows_with_the_vocabulary(count: int, dtype: type, blank: int) -> None:
    result = make_segmentation(
        names=tuple(f"c{i}" for i in range(count)), scores=np.zeros(count, np.float32)
    )
    label_map, value = result.label_map()
    assert label_map.dtype == dtype and value == blank
    assert label_map[0, 5] == blank and label_map[0, 0] == 0


def test_save_writes_files_that_read_back(tmp_path: Path) -> None:
    proposal = Proposal({"size": [4, 6], "counts": "x"}, 2, 0.5, 0.25, None, 0.1)
    result = make_segmentation(proposals=(proposal,))
    files = result.save(
        tmp_path / "new", stem="a", views=["overlay", "mask", "panel"], proposals=True
    )
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "a.json", "a_labels.png", "a_mask.png", "a_overlay.jpg", "a_panel.jpg",
    ]  # fmt: skip
    stored = np.asarray(Image.open(files["labels"])).astype(int)
    assert (np.where(stored == 255, -1, stored) == result.labels).all()
    described = json.loads(files["json"].read_text(encoding="utf-8"))
    assert described["names"] == ["sky", "road", "tree"]
    assert described["blank_value"] == 255 and described["unlabelled_pixels"] == 8
    assert [c["share"] for c in described["classes"]] == [0.5, pytest.approx(1 / 6, abs=1e-6)]
    assert described["provenance"] == {"weights": {"name": "w"}}
    assert described["proposals"][0]["category_name"] == "tree"
    assert np.asarray(Image.open(files["mask"]))[0, 5].tolist() == [0, 0, 0]


def test_mask_and_json_agree_on_colors(tmp_path: Path) -> None:
    files = make_segmentation().save(tmp_path, views=["mask"])
    colors = {c["name"]: c["color"] for c in _named(files["json"])}
    assert np.asarray(Image.open(files["mask"]))[0, 0].tolist() == colors["sky"]


def _named(path: Path) -> list[dict[str, object]]:
    return [{**c, "name": c["category_name"]} for c in json.loads(path.read_text())["classes"]]


def test_save_refuses_an_unknown_view_before_writing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['overlay', 'mask', 'panel'\], got \['3d'\]"):
        make_segmentation().save(tmp_path / "x", views=["3d"])
    assert not (tmp_path / "x").exists()


def test_names_in_any_alphabet_are_saved(tmp_path: Path) -> None:
    result = make_segmentation(names=("天空", "road", "árbol"))
    assert "天空" in result.save(tmp_path)["json"].read_text(encoding="utf-8")


def test_hf_shape() -> None:
    entries = make_segmentation().to_hf()
    assert [entry["label"] for entry in entries] == ["sky", "tree"]
    assert entries[0]["mask"].mode == "L" and entries[0]["mask"].size == (6, 4)
    assert np.asarray(entries[0]["mask"]).sum() == 12 * 255


def test_supervision_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'ovseg\[supervision\]'"):
        make_segmentation().to_supervision()


def test_supervision_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("supervision")
    stub.Detections = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", stub)
    detections = make_segmentation().to_supervision()
    assert detections["xyxy"].tolist() == [[0, 0, 3, 4], [4, 2, 6, 4]]
    assert detections["mask"].sum((1, 2)).tolist() == [12, 4]
    assert detections["class_id"].tolist() == [0, 2]
    assert detections["confidence"].tolist() == [0.75, 0.5]
    assert detections["data"]["class_name"].tolist() == ["sky", "tree"]


def test_real_supervision_accepts_the_result() -> None:
    pytest.importorskip("supervision")
    assert len(make_segmentation().to_supervision()) == 2


def test_table_lists_classes_and_unclaimed_pixels() -> None:
    lines = make_segmentation().table().splitlines()
    assert lines[0].split() == ["class", "area", "pixels", "score"]
    assert lines[1].split() == ["sky", "50.0%", "12", "0.75"]
    assert lines[3].split() == ["(no", "class)", "33.3%", "8"]


def test_overlay_without_legend_leaves_blank_pixels() -> None:
    picture = make_segmentation().overlay(legend=False, outlines=False)
    assert picture.shape == (4, 6, 3)
    assert (picture[0, 5] == 90).all() and (picture[0, 0] != 90).any()


def test_picture_without_any_class() -> None:
    result = make_segmentation(labels=np.full((4, 6), -1, np.int32))
    assert result.areas() == [] and result.to_coco_rle() == [] and result.to_hf() == []
    assert result.overlay().dtype == np.uint8
    assert result.to_dict()["unlabelled_pixels"] == 24


def test_regions_are_iterated_largest_first_with_masks_and_boxes() -> None:
    result = make_segmentation()
    sky, tree = result
    assert [(r.name, r.label, r.pixels, r.box) for r in (sky, tree)] == [
        ("sky", 0, 12, (0, 0, 3, 4)), ("tree", 2, 4, (4, 2, 6, 4)),
    ]  # fmt: skip
    assert (np.asarray(tree) == (result.labels == 2)).all() and tree.score == pytest.approx(0.5)
    assert len(result) == 2 and bool(make_segmentation(labels=np.full((4, 6), -1, np.int32)))
    assert (result.masks == np.stack([sky.mask, tree.mask])).all()


def test_a_class_is_found_by_its_name() -> None:
    result = make_segmentation()
    assert result["tree"].mask.sum() == 4 and "tree" in result
    road = result["road"]  # asked for and not found
    assert (road.pixels, road.score, road.box, road.mask.any()) == (0, 0.0, None, False)
    assert "road" not in result and "car" not in result
    with pytest.raises(KeyError, match=r"one of \['sky', 'road', 'tree'\], got 'car'"):
        result["car"]


def test_masks_of_a_picture_without_any_class() -> None:
    assert make_segmentation(labels=np.full((4, 6), -1, np.int32)).masks.shape == (0, 4, 6)


def test_plot_is_a_picture_for_scripts_notebooks_and_matplotlib() -> None:
    class Axes:
        def imshow(self, picture: np.ndarray) -> None:
            self.picture = picture

        def set_axis_off(self) -> None:
            self.off = True

    result, axes = make_segmentation(), Axes()
    drawn = result.plot(ax=axes, legend=False)
    assert drawn.size == (6, 4) and (np.asarray(drawn) == axes.picture).all() and axes.off
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert (np.asarray(shown) == result.overlay()).all()


@pytest.mark.parametrize("place", ["a.json", "a_labels.png", "."])
def test_a_saved_result_is_loaded_from_any_of_its_files(tmp_path: Path, place: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    proposal = Proposal({"size": [4, 6], "counts": "x"}, 2, 0.5, 0.25, None, 0.1)
    made = make_segmentation(
        image=picture,
        proposals=(proposal,),
        background=1,
        provenance={"image": str(tmp_path / "p.png")},
    )
    made.save(tmp_path / "out", stem="a", proposals=True)
    read = Segmentation.load(tmp_path / "out" / place)
    np.testing.assert_array_equal(read.labels, made.labels)
    np.testing.assert_array_equal(read.image, picture)
    np.testing.assert_array_equal(read.scores, made.scores)
    assert (read.names, read.background, read.proposals) == (made.names, 1, (proposal,))
    assert read.to_dict(proposals=True) == made.to_dict(proposals=True)


def test_a_result_whose_picture_is_gone_is_loaded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_segmentation(provenance={"image": "gone.jpg"}).save(tmp_path)
    read = Segmentation.load(tmp_path)
    assert (read.image == 255).all() and "its picture gone.jpg is not there" in caplog.text
    given = Segmentation.load(tmp_path, image=np.zeros((4, 6), np.uint8))
    assert (given.image == 0).all()
    with pytest.raises(OSError, match="expected a picture of 6 x 4 pixels, got 5 x 4"):
        Segmentation.load(tmp_path, image=np.zeros((4, 5), np.uint8))


def test_what_is_no_saved_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder with one result, found none"):
        Segmentation.load(tmp_path)
    result = make_segmentation()
    for stem in ("a", "b"):
        result.save(tmp_path, stem=stem, views=[])
    with pytest.raises(ValueError, match=r"found a.json, b.json; name one"):
        Segmentation.load(tmp_path)
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"c.json: .*got format_version None"):
        Segmentation.load(tmp_path / "c.json")
    whole = json.loads((tmp_path / "b.json").read_text())
    entry = {**whole["classes"][0], "category_id": 3}
    for key, value in {
        **{"height": "4", "names": "sky", "background": 7, "provenance": [], "classes": [entry]},
        **{"proposals": [{**entry, "category_id": 0}], "width": None, "blank_value": 1.5},
    }.items():
        (tmp_path / "d.json").write_text(json.dumps({**whole, key: value}))
        with pytest.raises(ValueError, match=f"d.json: {key}: not what a saved result has"):
            Segmentation.load(tmp_path / "d.json")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a_labels.png")
    with pytest.raises(ValueError, match="the two files are of different results"):
        Segmentation.load(tmp_path / "a.json")
