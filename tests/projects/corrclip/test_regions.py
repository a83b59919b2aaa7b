from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from ovseg.config import load_cfg
from ovseg.data.dataset_yaml import register_yaml
from ovseg.projects.corrclip.regions import REGION_SOURCE_REGISTRY, RegionError, build_regions
from ovseg.projects.corrclip.regions.files import FileRegions, read_region_map, write_region_map
from ovseg.projects.corrclip.regions.maskformer import PaintedProposals
from ovseg.projects.corrclip.regions.plain import GridRegions, LabelRegions, SlicRegions

CONFIG = "corrclip_vitB"


def picture(height=24, width=36):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def config(**changes):
    opts = ["MODEL.DEVICE", "cpu"]
    for key, value in changes.items():
        opts += [f"MODEL.CORRCLIP.REGIONS.{key.replace('__', '.')}", value]
    return load_cfg(CONFIG, opts)


def overlapping():
    masks = np.zeros((3, 4, 6), dtype=bool)
    masks[0, 0:3, 0:4] = True  # 12 pixels
    masks[1, 1:2, 1:3] = True  # 2, inside the first
    masks[2, 2:4, 3:6] = True  # 6, over the first one's corner
    return masks


# -- files ------------------------------------------------------------------------------------


def test_published_files_are_read_by_the_stem_of_the_picture(tmp_path):
    regions = np.arange(24 * 36).reshape(24, 36).astype(np.int16) % 7
    np.savez_compressed(tmp_path / "000001.npz", instance_mask=regions)
    source = FileRegions(tmp_path)

    for name in ("000001", "000001.jpg"):
        found = source(picture(), name)
        assert found.dtype == np.int32 and np.array_equal(found, regions)
    assert source.name == f"files:{tmp_path.name}" and not source.needs_pixels


@pytest.mark.parametrize(("top", "stored"), [(3, np.int16), (40_000, np.int32)])
def test_written_maps_come_back_in_the_smallest_published_type(tmp_path, top, stored):
    regions = np.zeros((24, 36), np.int32)
    regions[3:9] = top
    write_region_map(tmp_path / "deep" / "a.npz", regions)

    assert read_region_map(tmp_path / "deep" / "a.npz").dtype == stored
    assert np.array_equal(FileRegions(tmp_path)(picture(), "deep/a"), regions)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.npz"]


def test_a_missing_map_is_named_with_what_makes_it(tmp_path):
    with pytest.raises(RegionError, match=r"expected b\.npz for the picture 'b'.*build_regions"):
        FileRegions(tmp_path)(picture(), "b")
    with pytest.raises(ValueError, match=r"REGIONS\.PATH: expected a folder"):
        FileRegions(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"REGIONS\.PATH: expected a folder"):
        FileRegions("")


@pytest.mark.parametrize("name", ["../a", "/etc/a", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(RegionError, match="name of a picture below"):
        FileRegions(tmp_path)(picture(), name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((36, 24), np.int16), r"\(24, 36\) \(height, width\) as the picture, got \(36, 2"),
        (np.full((24, 36), -1, np.int16), r"ids from 0 .* got -1\.\.-1"),
        (np.zeros((24, 36), np.float32), "integer ids of regions, got float32"),
        (np.array(["x"], dtype=object), "expected an .npz file of arrays"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, array, message):
    np.savez_compressed(tmp_path / "a.npz", instance_mask=array)

    with pytest.raises(RegionError, match=message):
        FileRegions(tmp_path)(picture(), "a")


def test_damaged_files_and_other_arrays_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 half of a file")
    np.savez(tmp_path / "b.npz", masks=np.zeros((24, 36)))

    with pytest.raises(RegionError, match=r"a\.npz: expected an \.npz file of arrays"):
        FileRegions(tmp_path)(picture(), "a")
    with pytest.raises(RegionError, match=r"an array 'instance_mask', got \['masks'\]"):
        FileRegions(tmp_path)(picture(), "b")


# -- grid, superpixels, labels ----------------------------------------------------------------


def test_a_grid_has_its_cells_and_a_border_without_region():
    regions = GridRegions(2, 3, border=2)(picture(), "")

    assert regions.shape == (24, 36) and sorted(np.unique(regions)) == [0, 1, 2, 3, 4, 5, 6]
    assert not regions[:2].any() and not regions[:, -2:].any() and regions[2:-2, 2:-2].all()
    assert regions[11, 11] == 1 and regions[12, 12] == 5
    assert GridRegions(2, 3).name == "grid:2x3" and GridRegions(1, 1)(picture(), "").min() == 1


def test_a_grid_finer_than_the_picture_gives_fewer_cells():
    regions = GridRegions(9, 9)(picture(3, 4), "")

    assert len(np.unique(regions)) == 12 and regions.min() >= 1


def test_a_grid_needs_cells():
    with pytest.raises(ValueError, match="at least 1 row and 1 column"):
        GridRegions(0, 3)


def test_superpixels_follow_edges_and_say_their_version():
    image = np.zeros((24, 36, 3), np.uint8)
    image[:, 18:] = 255
    source = SlicRegions(segments=8)
    regions = source(image, "")

    assert regions.dtype == np.int32 and regions.min() == 1 and 2 < regions.max() <= 16
    assert not set(np.unique(regions[:, :18])) & set(np.unique(regions[:, 18:]))
    assert source.name.startswith("slic:8 compactness 10 sigma 0 (scikit-image ")


def test_superpixels_without_scikit_image_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)

    with pytest.raises(ImportError, match=r"pip install 'ovseg\[superpixels\]'"):
        SlicRegions()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    labels = np.full((24, 36), 255, np.uint8)
    labels[:10], labels[10:20] = 0, 1
    for name, array in (("images", picture()), ("labels", labels)):
        (folder / name).mkdir()
        Image.fromarray(array).save(folder / name / "a.png")
    text = "name: regions_of_labels\nimages: images\nlabels: labels\nclasses: [sky, sea]\n"
    (folder / "set.yaml").write_text(text)
    register_yaml(folder / "set.yaml")
    return folder


def test_true_labels_are_regions_and_ignored_pixels_none(labelled):
    source = build_regions(config(NAME="labels", DATASET="regions_of_labels"))
    regions = source(picture(), "a")

    assert (regions[:10] == 1).all() and (regions[10:20] == 2).all() and not regions[20:].any()
    assert source.name == "labels:regions_of_labels"
    with pytest.raises(RegionError, match="a picture of this dataset, got 'b'"):
        source(picture(), "b")
    with pytest.raises(RegionError, match="upright"):
        source(picture(36, 24), "a")


def test_labels_of_no_dataset_are_refused():
    with pytest.raises(ValueError, match=r"REGIONS\.DATASET: expected the name of a dataset"):
        LabelRegions("no_such_set")


# -- proposals --------------------------------------------------------------------------------


class Proposals:
    name = "toy"

    def __call__(self, image, image_id):
        return overlapping()


def test_proposals_are_painted_in_the_order_that_is_asked_for():
    assert PaintedProposals(Proposals())(picture(), "")[1, 1] == 3
    smaller = PaintedProposals(Proposals(), on_top="smaller")
    assert smaller(picture(), "")[1, 1] == 3 and smaller(picture(), "")[0, 0] == 1
    assert smaller.name == "toy, smaller on top"
    with pytest.raises(ValueError, match=r"ON_TOP: expected one of \('larger', 'smaller'\)"):
        PaintedProposals(Proposals(), on_top="best")


def test_the_bundled_maskformer_gives_regions_at_the_size_of_the_picture():
    source = build_regions(config(NAME="maskformer"))
    regions = source(picture(70, 100), "")

    assert regions.shape == (70, 100) and regions.dtype == np.int32 and regions.min() >= 0
    assert np.array_equal(regions, source(picture(70, 100), ""))
    assert source.name.startswith("maskformer:ovseg_tiny@") and "larger on top" in source.name


def test_a_maskformer_without_a_config_is_asked_for_one():
    with pytest.raises(ValueError, match=r"MASKFORMER\.CONFIG: expected the config"):
        build_regions(config(NAME="maskformer", MASKFORMER__WEIGHTS="some_file.pth"))


# -- the table --------------------------------------------------------------------------------


def test_every_source_has_a_name_and_another_is_refused_with_the_list():
    names = sorted(name for name, _ in REGION_SOURCE_REGISTRY)
    expected = ["eomt", "files", "grid", "labels", "mask2former", "maskformer", "sam2", "slic"]
    assert [name for name in names if name in expected] == expected
    with pytest.raises(ValueError, match=r"REGIONS\.NAME: expected one of .*'slic'\], got 'sam9'"):
        build_regions(config(NAME="sam9"))


def test_settings_reach_the_source():
    source = build_regions(config(NAME="grid", GRID__ROWS=3, GRID__COLS=5, GRID__BORDER=1))

    assert source.name == "grid:3x5 border 1"
    assert build_regions(config(NAME="slic", SLIC__SEGMENTS=7)).segments == 7
