from __future__ import annotations

import json

import numpy as np
import pytest

from ovseg.proposals import (
    FileProposer,
    GridProposer,
    InstanceProposer,
    ProposalError,
    propose_batch,
)
from ovseg.utils.images import write_png
from ovseg.utils.masks import encode_rle

IMAGE = np.zeros((6, 8, 3), dtype=np.uint8)
LEFT = np.zeros((6, 8), dtype=bool)
LEFT[:, :3] = True
RIGHT = np.zeros((6, 8), dtype=bool)
RIGHT[1:4, 5:] = True
EMPTY = np.zeros((6, 8), dtype=bool)


def test_a_grid_covers_each_pixel_once():
    masks = GridProposer(2, 3)(IMAGE, "any")

    assert masks.shape == (6, 6, 8)
    assert masks.dtype == np.bool_
    assert (masks.sum(axis=0) == 1).all()
    assert masks[0, 0, 0]
    assert masks[5, 5, 7]


def test_a_grid_finer_than_the_picture_has_no_empty_cells():
    masks = GridProposer(4, 4)(np.zeros((2, 3, 3), dtype=np.uint8), "any")

    assert len(masks) == 6
    assert masks.any(axis=(1, 2)).all()


def test_a_grid_needs_rows_and_columns():
    with pytest.raises(ValueError, match="at least 1 row and 1 column, got 0 x 2"):
        GridProposer(0, 2)


def write_instances(folder, *, size=(6, 8)):
    square = [5, 1, 8, 1, 8, 4, 5, 4]
    uncompressed = {"size": [6, 8], "counts": [0, 18, 30]}  # column by column: the left three
    content = {
        "images": [
            {"id": 12, "file_name": "000000000012.jpg", "height": size[0], "width": size[1]},
            {"id": 7, "file_name": "bare.jpg", "height": 6, "width": 8},
        ],
        "annotations": [
            {"image_id": 12, "category_id": 2, "segmentation": encode_rle(LEFT)},
            {"image_id": 12, "category_id": 1, "segmentation": [square]},
            {"image_id": 12, "category_id": 2, "segmentation": uncompressed},
            {"image_id": 12, "category_id": 2, "segmentation": encode_rle(EMPTY)},
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["12", "000000000012.jpg", "000000000012"])
def test_instances_are_found_by_id_and_name_in_every_form_of_coco(tmp_path, name):
    masks = InstanceProposer(write_instances(tmp_path))(IMAGE, name)

    assert np.array_equal(masks, [LEFT, RIGHT, LEFT])


def test_instances_of_a_class_are_united_on_request(tmp_path):
    path = write_instances(tmp_path)
    masks = InstanceProposer(path, per_class=True)(IMAGE, "12")

    assert np.array_equal(masks, [RIGHT, LEFT])
    assert InstanceProposer(path, per_class=True).name != InstanceProposer(path).name


def test_a_picture_without_instances_has_no_regions(tmp_path):
    assert InstanceProposer(write_instances(tmp_path))(IMAGE, "bare").shape == (0, 6, 8)


def test_instances_of_another_size_are_refused(tmp_path):
    proposer = InstanceProposer(write_instances(tmp_path, size=(8, 6)))

    with pytest.raises(ProposalError, match=r"is \(8, 6\).* but the picture is \(6, 8\)"):
        proposer(IMAGE, "12")


def test_a_picture_that_is_not_listed_is_refused(tmp_path):
    with pytest.raises(ProposalError, match="has no image '13'"):
        InstanceProposer(write_instances(tmp_path))(IMAGE, "13")


def test_a_file_that_holds_no_instances_is_refused(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"images": []}')

    with pytest.raises(ValueError, match="expected a COCO instances file"):
        InstanceProposer(path)


def test_regions_are_read_from_arrays_run_lengths_and_pictures(tmp_path):
    np.savez(tmp_path / "a.npz", masks=np.stack([LEFT, EMPTY, RIGHT]).astype(np.uint8) * 255)
    (tmp_path / "b.json").write_text(json.dumps([encode_rle(LEFT), encode_rle(RIGHT)]))
    write_png(tmp_path / "c" / "0.png", LEFT.astype(np.uint8))
    write_png(tmp_path / "c" / "1.png", RIGHT.astype(np.uint8) * 255)
    proposer = FileProposer(tmp_path)

    for name in ("a", "a.jpg", "b", "b.png", "c", "c.jpg"):
        assert np.array_equal(proposer(IMAGE, name), [LEFT, RIGHT]), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "expected missing.npz, missing.json or a folder missing/"),
        ("small", r"expected masks \(Q, 6, 8\) as the picture, got \(1, 5, 8\)"),
        ("wrong", "expected a JSON list of COCO RLE"),
        ("broken", "expected an array 'masks'"),
        ("../outside", "no name below"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, message):
    folder = tmp_path / "masks"
    folder.mkdir()
    np.savez(tmp_path / "outside.npz", masks=LEFT[None])
    np.savez(folder / "small.npz", masks=LEFT[None, 1:])
    (folder / "wrong.json").write_text('[{"counts": 3}]')
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no archive")

    with pytest.raises(ProposalError, match=message):
        FileProposer(folder)(IMAGE, name)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", masks=np.array([object()]))

    with pytest.raises(ProposalError, match="expected an array 'masks'"):
        FileProposer(tmp_path)(IMAGE, "a")


def test_several_pictures_go_one_by_one_where_the_proposer_has_no_batches():
    first, second = propose_batch(GridProposer(1, 2), [IMAGE, IMAGE[:3]], ["a", "b"])

    assert (first.shape, second.shape) == ((2, 6, 8), (2, 3, 8))
