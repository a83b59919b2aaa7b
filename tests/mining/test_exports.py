from __future__ import annotations

import csv
import importlib.util
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ovseg.data.pair_files import KEY_COLOUR, TarPairDataset, TsvPairDataset, colour_key_mask
from ovseg.mining.crops import cut
from ovseg.mining.exports import export_coco, export_tsv, export_webdataset
from ovseg.mining.records import records_table
from ovseg.readers.pictures import read_image
from ovseg.utils.images import write_png
from tests.helpers import run_python
from tests.mining.mined import Pictures, make_image, make_mask, make_record, make_records


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _tight(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return array[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# -- crops -----------------------------------------------------------------------------------


def test_a_crop_holds_the_regions_pixels_and_the_mean_colour_around():
    image, mask = make_image(0), make_mask(0)

    region, inside = cut(image, mask)

    assert (inside == _tight(mask, mask)).all()
    assert (region[inside] == _tight(image, mask)[inside]).all()
    assert (region[~inside] == [123, 117, 104]).all()
    assert (image == make_image(0)).all(), "the picture itself stays"


def test_a_colour_key_crop_reads_back_to_its_mask_whatever_the_region_holds(tmp_path):
    image, mask = make_image(0), make_mask(0)
    image[8:12, 4:12] = KEY_COLOUR
    assert (image[mask] == KEY_COLOUR).all(-1).sum() > 5

    region, inside = cut(image, mask, "colour-key")
    write_png(tmp_path / "crop.png", region)
    read = read_image(tmp_path / "crop.png")

    assert (colour_key_mask(read, "crop") == inside).all()
    change = np.abs(read[inside].astype(int) - _tight(image, mask)[inside]).sum(-1)
    assert change.max() == 1
    assert (change > 0).sum() == (image[mask] == KEY_COLOUR).all(-1).sum()


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"expected one of \('mask', 'colour-key'\), got 'key'"):
        cut(make_image(0), make_mask(0), "key")


# -- table of crops --------------------------------------------------------------------------


def test_the_table_lists_each_pair_with_crop_mask_and_title(tmp_path):
    records = make_records(6)

    table = export_tsv(records, Pictures(), tmp_path, template="a photo of a {}.")

    rows = _rows(table)
    assert table.read_text().splitlines()[0] == "title\tfilepath\tmaskpath\tnoun"
    assert [row["noun"] for row in rows] == records["noun"].to_pylist()
    assert rows[2]["title"] == "a photo of a red kite."
    for number, row in enumerate(rows):
        image, mask = make_image(number // 2), make_mask(number)
        crop = read_image(tmp_path / row["filepath"])
        stored = np.asarray(Image.open(tmp_path / row["maskpath"]))
        assert sorted(np.unique(stored)) == [0, 255]
        assert ((stored > 0) == _tight(mask, mask)).all()
        assert (crop[stored > 0] == _tight(image, mask)[stored > 0]).all(), "lossless"


def test_the_colour_key_form_has_upstreams_columns_and_exact_masks(tmp_path):
    table = export_tsv(make_records(6), Pictures(), tmp_path, form="colour-key")

    rows = _rows(table)
    assert list(rows[0]) == ["title", "filepath"]
    assert not (tmp_path / "masks").exists()
    for number, row in enumerate(rows):
        mask = make_mask(number)
        crop = read_image(tmp_path / row["filepath"])
        assert (colour_key_mask(crop, row["filepath"]) == _tight(mask, mask)).all()


def test_pairs_of_one_image_read_it_once(tmp_path):
    pictures = Pictures()

    export_tsv(make_records(6), pictures, tmp_path)

    assert pictures.read == ["100", "101", "102"]


def test_titles_survive_the_reader_that_open_clip_uses(tmp_path):
    pandas = pytest.importorskip("pandas")
    nouns = ("null", "nan", "None", "NA", "n/a", 'a "b"', "'", "tab\tbed", "12", "été")
    records = make_records(len(nouns), nouns=nouns)

    table = export_tsv(records, Pictures(), tmp_path)

    titles = pandas.read_csv(table, sep="\t")["title"].tolist()
    assert [str(title).lower() for title in titles] == [
        *("null", "nan", "none", "na", "n/a", 'a "b"', "'", "tab bed", "12", "été")
    ]
    assert [row["noun"] for row in _rows(table)] == list(nouns)


def test_a_stopped_export_goes_on_and_ends_like_an_undisturbed_one(tmp_path):
    records, stopped = make_records(8), tmp_path / "stopped"

    def breaks(row):
        if row.image_id == "102":
            raise OSError("disk gone")
        return Pictures()(row)

    with pytest.raises(OSError, match="disk gone"):
        export_tsv(records, breaks, stopped)
    assert not (stopped / "pairs.tsv").exists()
    crop, mask = (next(stopped.glob(f"{kind}/*/*.png")) for kind in ("images", "masks"))
    for kind in (".pairs.x1y2.tsv", ".export.x1y2.json"):  # of a process that was killed
        (stopped / kind).write_bytes(b"half")
    for file in (crop, mask):
        file.with_name(f".{file.stem}.x1y2.png").write_bytes(b"half")
    pictures = Pictures()
    export_tsv(records, pictures, stopped)
    export_tsv(records, Pictures(), tmp_path / "whole")

    assert pictures.read == ["102", "103"]
    assert _contents(stopped) == _contents(tmp_path / "whole")


def test_a_finished_export_is_left_alone(tmp_path):
    records, pictures = make_records(4), Pictures()
    export_tsv(records, pictures, tmp_path)

    export_tsv(records, pictures, tmp_path)

    assert pictures.read == ["100", "101"]


def test_a_folder_with_another_export_is_refused(tmp_path):
    export_tsv(make_records(4), Pictures(), tmp_path)

    with pytest.raises(ValueError, match=r": form: mask -> colour-key\. .*choose another folder"):
        export_tsv(make_records(4), Pictures(), tmp_path, form="colour-key")
    with pytest.raises(ValueError, match=r"pairs: 4 -> 6; records_sha256: "):
        export_tsv(make_records(6), Pictures(), tmp_path)


def test_a_picture_of_another_size_is_named(tmp_path):
    records = make_records(2)

    with pytest.raises(ValueError, match=r"pair \w{32} of image \('100', 'train/0.png'\).*size"):
        export_tsv(records, lambda row: make_image(0, (20, 36)), tmp_path)


@pytest.mark.parametrize("template", ["a photo", "{} {}", "{noun}", "{} {x}"])
def test_a_template_without_one_place_for_the_noun_is_refused(tmp_path, template):
    with pytest.raises(ValueError, match="template: expected one"):
        export_tsv(make_records(2), Pictures(), tmp_path, template=template)


def test_names_that_are_no_file_names_are_refused(tmp_path):
    records = records_table([make_record(0, 0, "dog", pair_id="../../evil")])

    with pytest.raises(ValueError, match=r"pair_id: expected .* got '../../evil'"):
        export_tsv(records, Pictures(), tmp_path / "in")
    assert [file.name for file in tmp_path.rglob("*.png")] == []


def test_a_picture_that_came_twice_is_exported_once(tmp_path, caplog):
    rows = [make_record(0, 0, "dog"), make_record(1, 1, "cat")]
    again = {**rows[0], "image_id": "109"}
    caplog.set_level("INFO")

    table = export_tsv(records_table([*rows, again]), Pictures(), tmp_path / "tsv")
    sizes = export_webdataset(records_table([*rows, again]), Pictures(), tmp_path / "tars")

    assert [row["noun"] for row in _rows(table)] == ["dog", "cat"]
    assert json.loads(sizes.read_text()) == {"00000.tar": 2}
    assert "1 pairs occur more than once" in caplog.text


def test_no_pairs_give_an_empty_table(tmp_path):
    table = export_tsv(make_records(0), Pictures(), tmp_path)

    assert table.read_text() == "title\tfilepath\tmaskpath\tnoun\n"


# -- WebDataset ------------------------------------------------------------------------------


def test_tars_hold_crop_mask_text_and_record_of_each_pair(tmp_path):
    records = make_records(5)

    index = export_webdataset(records, Pictures(), tmp_path, shard_size=2, template="a {}.")

    assert json.loads(index.read_text()) == {"00000.tar": 2, "00001.tar": 2, "00002.tar": 1}
    with tarfile.open(tmp_path / "00001.tar") as tar:
        members = tar.getmembers()
        contents = {m.name: tar.extractfile(m) for m in members}
        key = records["pair_id"][2].as_py()
        endings = ["png", "mask.png", "txt", "json"]
        assert [m.name for m in members[:4]] == [f"{key}.{ending}" for ending in endings]
        assert contents[f"{key}.txt"].read() == b"a red kite."
        record = json.loads(contents[f"{key}.json"].read())
        mask = np.asarray(Image.open(contents[f"{key}.mask.png"])) > 0
        crop = np.asarray(Image.open(contents[f"{key}.png"]))
    assert record["noun"] == "red kite"
    assert record["clip_score"] == 0.202
    assert (mask == _tight(make_mask(2), make_mask(2))).all()
    assert (crop[mask] == _tight(make_image(1), make_mask(2))[mask]).all()


def test_what_a_killed_export_left_behind_goes(tmp_path):
    records = make_records(4)
    for kind in (".00000.x1y2.tar", ".sizes.x1y2.json", ".instances.x1y2.json"):
        (tmp_path / kind).write_bytes(b"half")

    export_webdataset(records, Pictures(), tmp_path, shard_size=2)
    export_coco(records, tmp_path / "instances.json")

    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["00000.tar", "00001.tar", "export.json", "instances.json", "sizes.json"]


@pytest.mark.parametrize("form", ["mask", "colour-key", "tars"])
def test_the_training_data_sets_read_back_the_same_regions(tmp_path, form):
    records = make_records(6)
    if form == "tars":
        export_webdataset(records, Pictures(), tmp_path, template="a {}.")
        pairs = TarPairDataset(tmp_path, image_size=(8, 8))
    else:
        table = export_tsv(records, Pictures(), tmp_path, form=form, template="a {}.")
        pairs = TsvPairDataset(table, image_size=(8, 8))

    assert list(pairs.texts) == [f"a {noun}." for noun in records["noun"].to_pylist()]
    if form != "colour-key":  # upstream's form has no column for it
        assert list(pairs.nouns) == records["noun"].to_pylist()
    for number in range(6):
        image, mask = pairs.region(number)
        full_image, full_mask = make_image(number // 2), make_mask(number)
        assert (mask == _tight(full_mask, full_mask)).all()
        assert (image[mask] == _tight(full_image, full_mask)[mask]).all()


def test_tars_are_the_same_bytes_each_time_and_after_a_stop(tmp_path):
    records = make_records(6)

    def breaks(row):
        if row.image_id == "102":
            raise OSError("disk gone")
        return Pictures()(row)

    with pytest.raises(OSError, match="disk gone"):
        export_webdataset(records, breaks, tmp_path / "a", shard_size=2)
    pictures = Pictures()
    export_webdataset(records, pictures, tmp_path / "a", shard_size=2)
    export_webdataset(records, Pictures(), tmp_path / "b", shard_size=2)

    assert pictures.read == ["102"]
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


def test_a_shard_needs_a_size(tmp_path):
    with pytest.raises(ValueError, match="shard_size: expected at least 1, got 0"):
        export_webdataset(make_records(2), Pictures(), tmp_path, shard_size=0)


# -- COCO ------------------------------------------------------------------------------------


def test_cocos_own_reader_finds_images_nouns_and_masks(tmp_path, capsys):
    records = make_records(6)

    path = export_coco(records, tmp_path / "instances.json")

    coco = COCO(str(path))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == sorted(
        set(records["noun"].to_pylist())
    )
    assert coco.getImgIds() == [100, 101, 102]
    assert coco.loadImgs(101)[0]["file_name"] == "train/1.png"
    for number, annotation in enumerate(coco.loadAnns(coco.getAnnIds())):
        mask = make_mask(number)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert annotation["image_id"] == 100 + number // 2
        assert (coco.annToMask(annotation).astype(bool) == mask).all()
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [
            *(columns[0], rows[0]),
            *(columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]),
        ]
        assert annotation["score"] == round(0.2 + 0.001 * number, 4)


@pytest.mark.parametrize("ids", [("7", "07"), ("a", "b"), ("7", "²")])
def test_images_whose_ids_are_no_numbers_are_counted(tmp_path, ids):
    rows = [make_record(i, 0, "dog", image_id=name) for i, name in enumerate(ids)]

    path = export_coco(records_table(rows), tmp_path / "instances.json")

    images = json.loads(path.read_text())["images"]
    assert [image["id"] for image in images] == [1, 2]
    assert [image["image_id"] for image in images] == list(ids)


def test_a_missing_margin_is_null_and_no_pairs_are_valid_json(tmp_path):
    single = records_table([make_record(0, 0, "dog", margin=None, runner_up_score=None)])
    export_coco(single, tmp_path / "one.json")
    export_coco(make_records(0), tmp_path / "none.json")

    assert json.loads((tmp_path / "one.json").read_text())["annotations"][0]["margin"] is None
    assert json.loads((tmp_path / "none.json").read_text())["annotations"] == []


# -- stock open_clip -------------------------------------------------------------------------

_TRAINING = ("pandas", "webdataset")


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in _TRAINING),
    reason="needs open_clip's training packages: pip install 'open_clip_torch[training]'",
)
@pytest.mark.parametrize("kind", ["csv", "colour-key", "webdataset"])
def test_stock_open_clip_trains_an_epoch(tmp_path, kind):
    records, folder = make_records(32), tmp_path / "export"
    if kind == "webdataset":
        export_webdataset(records, Pictures(), folder, shard_size=16)
        data = ["--train-data", "{00000..00001}.tar", "--dataset-type", "webdataset"]
    else:
        form = "mask" if kind == "csv" else kind
        export_tsv(records, Pictures(), folder, form=form)
        data = ["--train-data", "pairs.tsv", "--dataset-type", "csv", "--csv-separator", "\t"]
        data += ["--csv-img-key", "filepath", "--csv-caption-key", "title"]
    model = ["--model", "ViT-S-32-alt", "--force-image-size", "64", "--device", "cpu"]
    length = ["--epochs", "1", "--batch-size", "8", "--workers", "0", "--warmup", "1"]

    run = run_python(
        *("-m", "open_clip_train.main", *data, *model, *length),
        *("--precision", "fp32", "--logs", str(tmp_path / "logs"), "--name", "run"),
        *("--log-every-n-steps", "1"),
        cwd=folder,
        timeout=600,
    )

    log = run.stdout + run.stderr
    assert run.returncode == 0, log[-4000:]
    losses = re.findall(r"Train Epoch: 0 .*Contrastive_loss: ([\d.]+)", log)
    assert len(losses) == 4, log[-4000:]
    assert all(0.5 < float(loss) < 5 for loss in losses), "about log(8) before anything is learnt"
    assert (tmp_path / "logs" / "run" / "checkpoints" / "epoch_1.pt").is_file()
