from __future__ import annotations

import json
import os

import pytest

from ovseg.commands.flags.train import make_parser
from ovseg.commands.train import run
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.tinyscapes import write_split
from ovseg.tinyscapes.garden import GARDEN, write_garden
from ovseg.vocab import Vocabulary, are_trained
from ovseg.weights.record import load_named
from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.usefixtures("restored_catalogues")

SCRIPT = ROOT / "tools" / "train_net.py"
SMALL = (
    *("MODEL.WEIGHTS", "random", "MODEL.SWIN.EMBED_DIM", "16", "MODEL.SWIN.DEPTHS", "[1,1,1,1]"),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "4", "SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.SWIN.NUM_HEADS", "[1,1,2,2]", "SOLVER.LOG_PERIOD", "1", "SOLVER.MAX_ITER", "2"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_split(root, "train", 4, workers=1)
    write_split(root, "val", 2, workers=1)
    return root


@pytest.fixture
def train_net(world, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world))
    return lambda *words: run(make_parser().parse_args([*words]))


def test_it_trains_and_evaluates_from_any_directory(tmp_path, world):
    done = run_python(
        *(str(SCRIPT), "--config", "ovseg_tiny", "--num-gpu", "0", *SMALL, "OUTPUT_DIR", "out"),
        cwd=tmp_path,
        DETECTRON2_DATASETS=str(world),
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),  # without the checkout
    )
    assert done.returncode == 0, done.stderr
    assert "iter: 2/2" in done.stdout and "mIoU" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model_final.safetensors", "config.yaml", "log.txt", "metrics.json"} < names
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").open()]
    assert "tinyscapes_val_sem_seg/sem_seg/mIoU" in lines[-1]
    manifest = tmp_path / "out" / "inference" / "tinyscapes_val_sem_seg" / "manifest.json"
    assert manifest.is_file()


def test_processes_that_fail_say_why_in_a_line_each_and_pass_their_status_on(tmp_path, world):
    run = run_python(
        *(str(SCRIPT), "--config-file", "ovseg_tiny", "--num-gpus", "2"),
        *("MODEL.DEVICE", "cpu", "DATASETS.TRAIN", "gone.yaml"),
        cwd=tmp_path,
        DETECTRON2_DATASETS=str(world),
    )
    assert run.returncode == 2 and "Traceback" not in run.stdout + run.stderr
    told = [line for line in run.stderr.splitlines() if "error: " in line]
    assert told and all("gone.yaml" in line for line in told)
    assert told[0].startswith("train_net.py: process ")


def test_the_help_text_shows_commands():
    text = make_parser().format_help()
    assert "--eval-only" in text and "torchrun --nproc-per-node" in text and "--resume" in text


def test_evaluation_takes_given_weights_or_the_runs_newest_checkpoint(tmp_path, train_net):
    output = ("OUTPUT_DIR", str(tmp_path))
    common = ("--config-file", "ovseg_tiny", "--num-gpus", "0")
    train_net(*common, *SMALL, "SOLVER.EMA.ENABLED", "True", "DATASETS.TEST", "()", *output)
    assert not (tmp_path / "inference").exists()
    manifest = tmp_path / "inference" / "tinyscapes_val_sem_seg" / "manifest.json"
    scores = []
    for words in (
        ("--resume", *SMALL),
        (*SMALL, "MODEL.WEIGHTS", str(tmp_path / "model_final.safetensors")),
    ):
        train_net(*common, "--eval-only", *words, *output)
        weights = json.loads(manifest.read_text())["weights"]
        assert len(weights["sha256"]) == 64
        metrics = json.loads(manifest.with_name("metrics.json").read_text())
        scores.append((weights["name"], metrics["sem_seg"]))
    # Both hold the averaged weights.
    assert scores[0][0] == "model_0000001.pth" and scores[0][1] == scores[1][1]


def test_evaluation_without_weights_says_what_to_give(tmp_path, train_net):
    words = ("--config-file", "ovseg_tiny", "--eval-only", *SMALL, "MODEL.WEIGHTS", "")
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS: expected the weights to evaluate"):
        train_net(*words, "OUTPUT_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def garden(tmp_path_factory):
    return write_garden(tmp_path_factory.mktemp("garden"), train=4, val=2)


def own_data(garden, output, *words):
    return (
        *("--config-file", "ovseg_tiny", "--num-gpus", "0", *SMALL),
        *("DATASETS.TRAIN", str(garden / "train.yaml"), "DATASETS.TEST", str(garden / "val.yaml")),
        *("OUTPUT_DIR", str(output), *words),
    )


LEARNED = ("MODEL.MASK_FORMER.QUERIES", "learned", "INPUT.SEGMENT_AUG.ENABLED", "False")


@pytest.mark.parametrize("queries", [LEARNED, ()], ids=["learned", "points"])
def test_a_model_of_31_classes_goes_on_with_five_of_ones_own(tmp_path, train_net, garden, queries):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ("--config-file", "ovseg_tiny", "--num-gpus", "0", *SMALL, "SOLVER.MAX_ITER", "1")
    train_net(*common, *queries, "DATASETS.TEST", "()", "OUTPUT_DIR", str(first))
    weights = first / "model_final.safetensors"
    train_net(*own_data(garden, second, *queries, "MODEL.WEIGHTS", str(weights)))
    kept = load_cfg(second / "config.yaml")
    assert kept.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5
    adapter = kept.MODEL.CLIP_ADAPTER
    # The list has sky already; the others are trained from now on.
    assert adapter.TRAINED_NAMES == "tinyscapes" and adapter.CLIP_WEIGHTS == ""
    assert list(adapter.TRAINED_CLASSES) == list(GARDEN)[1:]
    model = build_model(kept)
    load_named(model, str(second / "model_final.safetensors"))
    names = Vocabulary.make(["sky", "gravel path", "windmill"])
    assert are_trained(names, model.trained_names) == (True, True, False)
    manifest = json.loads((second / "inference" / "garden_val" / "manifest.json").read_text())
    assert manifest["weights"]["path"] == str(second / "model_final.safetensors")
    assert len(manifest["weights"]["sha256"]) == 64


def test_training_from_nothing_forgets_the_names_of_other_data(tmp_path, train_net, garden):
    train_net(*own_data(garden, tmp_path / "out", "DATASETS.TEST", "()"))
    adapter = load_cfg(tmp_path / "out" / "config.yaml").MODEL.CLIP_ADAPTER
    assert adapter.TRAINED_NAMES == "" and list(adapter.TRAINED_CLASSES) == list(GARDEN)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7"), r"NUM_CLASSES: expected 5, .*leave it out"),
        (("MODEL.WEIGHTS", "gone.pth"), "gone.pth"),
        (("DATASETS.TEST", "tinyscapes_va_sem_seg"), "did you mean tinyscapes_val_sem_seg"),
        (("DATASETS.TRAIN", "gone.yaml"), "no dataset file gone.yaml"),
        (("TEST.EXPECTED_RESULTS", "[['sem_seg', 'mIoU', 40]]"), "rows of task, metric, value"),
    ],
)
def test_a_run_that_cannot_succeed_stops_before_a_model_is_built(
    tmp_path, train_net, garden, words, message, monkeypatch
):
    monkeypatch.setattr("ovseg.d2.modeling.build_model", None)
    with pytest.raises((ValueError, OSError), match=message):
        train_net(*own_data(garden, tmp_path / "out", *words))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_labels_that_are_no_class_are_found_before_a_model_is_built(tmp_path, train_net, garden):
    text = (garden / "train.yaml").read_text()
    few = garden / "few.yaml"
    text = text.replace("sky, lawn, vegetable patch, gravel path, fence", "sky, lawn")
    few.write_text(text)
    words = ("DATASETS.TRAIN", str(few), "DATASETS.TEST", "()")
    with pytest.raises(ValueError, match=r"expected labels in 0\.\.1 or 255"):
        train_net(*own_data(garden, tmp_path / "out", *words))


def test_training_again_into_a_used_folder_stops(tmp_path, train_net, garden):
    words = own_data(garden, tmp_path, "DATASETS.TEST", "()")
    train_net(*words)
    before = (tmp_path / "config.yaml").read_bytes(), (tmp_path / "log.txt").read_bytes()
    with pytest.raises(ValueError, match=r"holds model_final\.safetensors; add --resume"):
        train_net(*words, "SEED", "1")
    assert before == ((tmp_path / "config.yaml").read_bytes(), (tmp_path / "log.txt").read_bytes())
    train_net("--resume", *words)
