from __future__ import annotations

import json
import os
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ovseg.clip_training.config import load_clip_config
from ovseg.tinyscapes import ALL_NAMES, SEEN_NAMES, ablation, render_scene
from ovseg.tinyscapes.ablation import ROWS, WEIGHTS, AblationSize, SeedStage, run_row
from ovseg.tinyscapes.ablation_pairs import class_pairs, collect_pairs, without_mask
from ovseg.tinyscapes.ablation_report import write_ablation
from ovseg.tinyscapes.ablation_run import Ablation, Job, plan, run_ablation
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY
from ovseg.utils.images import write_png
from ovseg.weights import catalogue

SIZE = AblationSize(pictures=60, steps=1, accuracy_scenes=1, val=1, test=1)
TWO_ROWS = [row for row in ROWS if row.name in ("as_trained", "classes")]


def test_true_pairs_of_the_seen_classes_leave_every_unseen_one_out():
    seen = class_pairs(4, seen_only=True, image_size=(64, 64), seed=0)
    everything = class_pairs(4, seen_only=False, image_size=(64, 64), seed=0)
    assert set(seen.nouns) <= set(SEEN_NAMES) and len(everything) > len(seen)
    assert set(everything.nouns) - set(SEEN_NAMES)
    assert seen.texts[0] == f"a photo of a {seen.nouns[0]}."
    labels = render_scene("train", 0).labels
    image, mask = everything.region(0)
    assert mask.sum() == (labels == ALL_NAMES.index(everything.nouns[0])).sum()
    assert image.shape[:2] == mask.shape


def test_unmasked_pairs_keep_the_crops_and_fill_the_masks():
    pairs = class_pairs(1, seen_only=False, image_size=(64, 64), seed=0)
    filled = without_mask(pairs)
    assert filled.nouns == pairs.nouns
    for index in range(len(pairs)):
        np.testing.assert_array_equal(filled.region(index)[0], pairs.region(index)[0])
        assert filled.region(index)[1].all()
    assert not all(pairs.region(index)[1].all() for index in range(len(pairs)))


def test_unknown_pairs_are_refused(tmp_path):
    options = {"pictures": 1, "image_size": (64, 64), "config": load_clip_config("clip_tiny_ft")}
    with pytest.raises(ValueError, match=r"mined_5.*'mined_6'"):
        collect_pairs("mined_6", folder=tmp_path, base=tmp_path, **options)


def scene_loader(folder):
    def load(cfg, name):
        split = name.split("_")[1]
        scene = render_scene(split, 0)
        file = folder / f"{split}.png"
        write_png(file, scene.labels)
        yield [
            {
                "image": torch.from_numpy(scene.image).permute(2, 0, 1),
                "sem_seg_file_name": str(file),
            }
        ]

    return load


def test_rows_train_and_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "build_test_loader", scene_loader(tmp_path))
    base = catalogue.entries()["ovseg_tiny"].bundled_path
    stage = SeedStage(tmp_path / "seed-7", base, 7, SIZE)
    results = {row.name: run_row(row, stage) for row in TWO_ROWS}
    before, after = results["as_trained"], results["classes"]
    assert before["training"] == {} and after["training"]["pairs"] >= 128
    assert set(before["system"]["val"]) == {
        MASK_CLASSIFIER_ONLY,
        CLIP_ONLY,
        *map(str, WEIGHTS),
    }
    proposals = [r["system"]["test"][MASK_CLASSIFIER_ONLY]["mIoU"] for r in (before, after)]
    assert proposals[0] == proposals[1] > 0
    best = max(before["system"]["val"][str(weight)]["mIoU"] for weight in WEIGHTS)
    assert before["system"]["val"][str(before["chosen_weight"])]["mIoU"] == best

    on_proposals = before["accuracy"]["val"]["proposals/all"]
    assert 0 < on_proposals < 100 and on_proposals != before["accuracy"]["val"]["masked/all"]

    monkeypatch.setattr(ablation, "measure", None)  # finished rows are not run again
    kept = json.loads((tmp_path / "seed-7" / "classes" / "result.json").read_text())
    assert run_row(TWO_ROWS[1], stage) == kept
    assert kept["training"] == after["training"] and kept["seconds"] == after["seconds"]
    other = SeedStage(tmp_path / "seed-7", base, 7, replace(SIZE, steps=2))
    with pytest.raises(ValueError, match=r": size\.steps: 1 -> 2\. To go on, remove it or choose"):
        run_row(TWO_ROWS[1], other)


def test_jobs_wait_for_the_models_pairs_and_rows_that_they_need():
    rows = [row for row in ROWS if row.name in ("classes", "both", "true_masks")]
    jobs = plan([3, 5], rows)
    assert list(jobs)[:2] == [Job(3, "base"), Job(5, "base")]
    assert jobs[Job(5, "classes")] == [Job(5, "base")]
    assert jobs[Job(5, "mined")] == [Job(5, "base")]
    assert jobs[Job(5, "mined_1")] == [Job(5, "base"), Job(5, "mined")]
    assert jobs[Job(5, "both")] == [Job(5, "base"), Job(5, "mined_1"), Job(5, "mined")]
    assert Job(3, "true_masks_mined") in jobs[Job(3, "true_masks")]
    assert len(jobs) == 2 * (1 + 2 + 4)


def bundled_base(folder, seed):
    return catalogue.entries()["ovseg_tiny"].bundled_path


@pytest.mark.slow
def test_two_processes_leave_the_results_of_one(tmp_path, monkeypatch):
    size = AblationSize(pictures=60, steps=2, accuracy_scenes=2, val=2, test=2)
    rows = [row for row in ROWS if row.name in ("as_trained", "classes", "mined_1", "both")]
    runs = []
    for workers in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)  # one thread each
        work = Ablation(tmp_path / str(workers), size, bundled_base)
        results = run_ablation(work, [0, 1], rows=rows, workers=workers)
        for rows_of_seed in results.values():
            for result in rows_of_seed.values():
                del result["seconds"]
        assert list(results) == [0, 1] and list(results[1]) == [row.name for row in rows]
        runs.append(json.dumps(results))  # a text, as groups without a region have NaN
    assert runs[0] == runs[1]


def made_up(accuracy, miou, weight=0.5):
    groups = ("all", "seen_things", "unseen_things", "seen_stuff", "unseen_stuff")
    scores = {
        "mIoU": miou,
        "mIoU-seen": miou,
        "mIoU-unseen": miou,
        "mIoU-unseen_things": miou / 2,
    }
    system = {key: scores for key in (MASK_CLASSIFIER_ONLY, CLIP_ONLY, "0.5", "0.7")}
    named = {f"masked/{g}": accuracy for g in groups} | {"box/all": accuracy}
    named |= {f"proposals/{g}": accuracy / 2 for g in groups}
    return {
        "size": {"pictures": 9, "steps": 3, "accuracy_scenes": 7, "val": 2, "test": 5},
        "training": {"pairs": 640},
        "accuracy": {"test": named},
        "system": {"test": system},
        "chosen_weight": weight,
    }


def test_the_page_shows_means_and_half_ranges_of_the_rows_that_are_there(tmp_path):
    results = {
        0: {"as_trained": made_up(40.25, 10.5), "both": made_up(60.5, 20.0)},
        3: {"as_trained": made_up(42.25, 11.5, 0.7)},
    }
    page = write_ablation(results, tmp_path).read_text()
    assert "Seeds: 0, 3;" in page and "9 training pictures" in page
    first = next(line for line in page.splitlines() if line.startswith("| CLIP as trained"))
    assert "41.2 ± 1.0" in first
    assert "| fine-tuned, then mask prompts | 640 | 60.5 |" in page
    assert "| fine-tuned, then mask prompts | 30.2 | 30.2 |" in page  # half of it on proposals
    assert "ceiling" not in page
    picture = ElementTree.fromstring((tmp_path / "ablation.svg").read_text())
    texts = [node.text for node in picture.iter() if node.tag.endswith("text")]
    assert "CLIP as trained" in texts and "60.5" in texts and "10.0" in texts


def test_a_group_without_a_region_leaves_a_gap(tmp_path):
    known, unknown = made_up(40.0, 20.0), made_up(50.0, 30.0)
    unknown["accuracy"]["test"]["masked/unseen_things"] = None  # NaN is null in result.json
    page = write_ablation({0: {"as_trained": unknown, "both": known}}, tmp_path).read_text()
    assert "| CLIP as trained | 640 | 50.0 | 50.0 | – | 50.0 | 50.0 | 50.0 |" in page
    picture = ElementTree.fromstring((tmp_path / "ablation.svg").read_text())
    bars = [node for node in picture.iter() if node.tag.endswith("rect")][3:]
    assert [(b.get("y"), b.get("width"), b.get("fill")) for b in bars] == [
        ("54", "63.0", "#e08a2e"),
        ("84", "168.0", "#3b6fb6"),
        ("98", "42.0", "#e08a2e"),
    ]


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one seed"):
        write_ablation({}, tmp_path)
