from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.evaluation import inference_on_dataset
from ovseg.evaluation import SemSegEvaluator, confusion_matrix, scores
from ovseg.utils.masks import decode_rle

NAMES = ["sky", "tree", "star", "ghost"]


@pytest.fixture
def world(tmp_path):
    """Three pictures with 16-bit labels; class 3 never occurs."""
    rng = np.random.default_rng(0)
    records, truths = [], []
    for index in range(3):
        truth = rng.choice([0, 1, 2, 65535], size=(6, 5 + index)).astype(np.uint16)
        Image.fromarray(truth).save(tmp_path / f"{index}.tif")
        Image.fromarray(np.zeros((*truth.shape, 3), np.uint8)).save(tmp_path / f"{index}.jpg")
        record = {"file_name": f"{tmp_path}/{index}.jpg", "image_id": str(index)}
        records.append({**record, "sem_seg_file_name": f"{tmp_path}/{index}.tif"})
        truths.append(truth)
    name = f"world_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=NAMES,
        ignore_label=65535,
        evaluation_set={"seen": [0, 1]},
        class_groups={"lights": [2]},
        stuff_dataset_id_to_contiguous_id={10: 0, 20: 1, 30: 2, 40: 3},
    )
    yield name, records, truths
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def predictions(truths, seed: int = 1) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.integers(0, 4, truth.shape)) for truth in truths]


def expected(truths, labels) -> dict[str, float]:
    matrix = sum(
        confusion_matrix(p.numpy(), t.astype(int), 4, 65535)
        for p, t in zip(labels, truths, strict=True)
    )
    return scores(matrix, NAMES, {"seen": [0, 1]}, {"lights": [2]})


def test_scores_are_those_of_all_pixels_together(world) -> None:
    name, records, truths = world
    labels = predictions(truths)
    evaluator = SemSegEvaluator(name)
    evaluator.process(records[:2], [{"labels": labels[0]}, {"labels": labels[1]}])
    evaluator.process(records[2:], [{"labels": labels[2]}])
    result = evaluator.evaluate()["sem_seg"]
    assert result == pytest.approx(expected(truths, labels), nan_ok=True)
    assert result["mIoU"] < result["mIoU-gt"]  # "ghost" is predicted, but nowhere true
    evaluator.reset()
    with pytest.raises(ValueError, match="none could be scored"):
        evaluator.evaluate()


def test_scores_per_class_are_argmaxed(world) -> None:
    name, records, truths = world
    labels = predictions(truths)
    volumes = [torch.nn.functional.one_hot(p, 4).permute(2, 0, 1).float() for p in labels]
    evaluator = SemSegEvaluator(name)
    evaluator.process(records, [{"sem_seg": volume} for volume in volumes])
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(expected(truths, labels), nan_ok=True)


def test_label_files_are_looked_up_where_the_input_does_not_name_them(world) -> None:
    name, records, truths = world
    labels = predictions(truths)
    evaluator = SemSegEvaluator(name)
    inputs = [{"file_name": record["file_name"]} for record in records]
    evaluator.process(inputs, [{"labels": p} for p in labels])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == pytest.approx(
        expected(truths, labels)["pACC"]
    )


def test_files_written(world, tmp_path) -> None:
    name, records, truths = world
    labels = predictions(truths)
    evaluator = SemSegEvaluator(name, output_dir=tmp_path / "out", write_predictions=True)
    evaluator.process(records, [{"labels": p} for p in labels])
    result = evaluator.evaluate()["sem_seg"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["sem_seg"]["mIoU"] == result["mIoU"]
    assert metrics["sem_seg"]["IoU-ghost"] is None
    assert metrics["conventions"].keys() == {"mIoU", "mIoU-gt"}
    assert metrics["images"] == {"expected": 3, "scored": 3, "missing": {}}
    assert len(metrics["class_names_sha256"]) == 64
    assert metrics["environment"]["d2_backend"] in ("lite", "real")
    assert "tree" in (tmp_path / "out" / "per_class.csv").read_text()
    coco = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    entry = next(
        e for e in coco if e["category_id"] == 30 and e["file_name"] == records[1]["file_name"]
    )
    np.testing.assert_array_equal(decode_rle(entry["segmentation"]), labels[1].numpy() == 2)


def test_truth_of_too_few_bits_is_not_scored(world, tmp_path, caplog) -> None:
    _, records, truths = world
    name = f"wide_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    classes = [f"class {number}" for number in range(847)]
    MetadataCatalog.get(name).set(stuff_classes=classes, ignore_label=65535)
    Image.fromarray(truths[0].astype(np.uint8)).save(records[0]["sem_seg_file_name"])
    evaluator = SemSegEvaluator(name)
    evaluator.process(records, [{"labels": p} for p in predictions(truths)])
    evaluator.evaluate()
    assert "expected 16 bits for 847 classes, got a label map of 8 bits" in caplog.text
    assert "1 of 3 images" in caplog.text


def test_the_log_names_both_conventions(world, caplog) -> None:
    name, records, truths = world
    evaluator = SemSegEvaluator(name)
    with caplog.at_level(logging.INFO, "ovseg"):
        evaluator.process(records, [{"labels": p} for p in predictions(truths)])
        evaluator.evaluate()
    for text in ("3 of 3 images", "mIoU-gt = detectron2", "harmonic mean", "lights", "ghost"):
        assert text in caplog.text


def test_images_that_never_came_are_counted_with_their_reason(world, tmp_path, caplog) -> None:
    name, records, truths = world
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    evaluator = SemSegEvaluator(name, output_dir=tmp_path)
    with caplog.at_level(logging.ERROR, "ovseg"):
        evaluator.process(records[:1], [{"labels": predictions(truths)[0]}])
        evaluator.evaluate()
    images = json.loads((tmp_path / "metrics.json").read_text())["images"]
    assert (images["expected"], images["scored"]) == (3, 1)
    assert images["missing"][records[1]["file_name"]].endswith("no prediction")
    assert "not an image" in images["missing"][records[2]["file_name"]]
    assert "2 of 3 images" in caplog.text


def test_an_unreadable_label_map_costs_only_its_own_image(world, tmp_path) -> None:
    name, records, truths = world
    (tmp_path / "0.tif").write_bytes(b"")
    labels = predictions(truths)
    evaluator = SemSegEvaluator(name, output_dir=tmp_path)
    evaluator.process(records, [{"labels": p} for p in labels])
    result = evaluator.evaluate()["sem_seg"]
    assert result == pytest.approx(expected(truths[1:], labels[1:]), nan_ok=True)
    missing = json.loads((tmp_path / "metrics.json").read_text())["images"]["missing"]
    assert "0.tif" in missing[records[0]["file_name"]]


def test_a_prediction_of_another_size_names_the_file_and_both_sizes(world) -> None:
    name, records, _ = world
    evaluator = SemSegEvaluator(name)
    with pytest.raises(ValueError, match=r"1\.jpg: .*\(6, 6\), got \(3, 3\); resize"):
        evaluator.process(records[1:2], [{"labels": torch.zeros(3, 3, dtype=torch.int64)}])


@pytest.mark.parametrize(
    "output",
    [
        {"labels": torch.full((6, 5), 4)},
        {"labels": torch.full((6, 5), -1)},
        {"sem_seg": torch.zeros(5, 6, 5)},
    ],
    ids=["too high", "unlabelled", "too many channels"],
)
def test_predictions_of_other_classes_are_refused(world, output) -> None:
    name, records, _ = world
    with pytest.raises(ValueError, match="expected predictions of the 4 classes"):
        SemSegEvaluator(name).process(records[:1], [output])


def test_the_same_image_counts_once(world) -> None:
    name, records, truths = world
    labels = predictions(truths)
    evaluator = SemSegEvaluator(name)
    for _ in range(2):
        evaluator.process(records, [{"labels": p} for p in labels])
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(expected(truths, labels), nan_ok=True)


def test_processes_are_merged_and_only_the_first_reports(world, monkeypatch) -> None:
    name, records, truths = world
    labels = predictions(truths)
    parts = [SemSegEvaluator(name), SemSegEvaluator(name)]
    parts[0].process(records[:2], [{"labels": p} for p in labels[:2]])
    parts[1].process(records[2:], [{"labels": labels[2]}])
    comm = "ovseg.evaluation.evaluator.comm"
    sent = []
    monkeypatch.setattr(f"{comm}.gather", lambda state, dst: sent.append(state) or [])
    monkeypatch.setattr(f"{comm}.is_main_process", lambda: False)
    assert parts[1].evaluate() is None
    monkeypatch.setattr(f"{comm}.gather", lambda state, dst: [state, *sent])
    monkeypatch.setattr(f"{comm}.is_main_process", lambda: True)
    result = parts[0].evaluate()["sem_seg"]
    assert result == pytest.approx(expected(truths, labels), nan_ok=True)


def test_it_runs_in_the_evaluation_loop(world) -> None:
    name, records, truths = world
    by_file = dict(zip((r["file_name"] for r in records), predictions(truths), strict=True))

    def model(inputs):
        return [{"labels": by_file[x["file_name"]]} for x in inputs]

    result = inference_on_dataset(model, [[r] for r in records], SemSegEvaluator(name))
    assert not math.isnan(result["sem_seg"]["hIoU-seen"])


def test_predictions_need_a_folder(world) -> None:
    with pytest.raises(ValueError, match="output_dir"):
        SemSegEvaluator(world[0], write_predictions=True)


def test_sets_that_cannot_be_scored_are_refused_before_anything_is_predicted() -> None:
    MetadataCatalog.get("badly_named").set(
        stuff_classes=["a", "b"], ignore_label=255, evaluation_set={"gt": [0]}
    )
    try:
        with pytest.raises(ValueError, match="name of its own, got 'gt'"):
            SemSegEvaluator("badly_named")
    finally:
        MetadataCatalog.remove("badly_named")
