"""Commands as people mistype them: each is answered in one line that says what was expected."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.commands.run import main
from ovseg.tinyscapes.garden import write_garden
from tests.evaluation.results_folder import write_folder

pytestmark = pytest.mark.usefixtures("restored_catalogues")

NO_GPU = ("--num-gpus", "0")
TINY = ("--config-file", "ovseg_tiny", *NO_GPU)
UNWRITABLE = "expected a folder that can be written to, got"
ONCE = ("SOLVER.MAX_ITER", "1")  # what is not refused ends soon
CLIP = ("--config-file", "clip_tiny_ft", *NO_GPU)
MINE = ("--source", "captioned", "--tagger", "textblob", "--output", "mined")
GARDEN = ("--dataset", "garden/val.yaml", "--config-file", "ovseg_tiny")

WRONG = [
    # demo
    ("demo --input", "expected at least one argument"),
    ("demo --class-names sky x.jpg", "which is a path; pictures come after --input"),
    ("demo --class-names sky --threshold 7", "expected a score from 0 to 1, got 7"),
    ("demo --class-names sky --min-region-area -4", "expected a number of pixels, got -4"),
    ("demo --class-names sky --vis 3d", "expected some of"),
    ("demo --opts MODEL.WEIGHTS gone.pth", "gone.pth"),
    ("demo --class-names sky --output words.txt", UNWRITABLE),
    # segment
    ("segment", "arguments are required: PATH"),
    ("segment x.jpg", "name what to look for"),
    ("segment gone.jpg --names sky", "gone.jpg: no such file"),
    ("segment x.jpg --names sky sky", "unique class names"),
    ("segment x.jpg --vocabulary ade", "valid: ade20k_150"),
    ("segment x.jpg --names sky --weights ovseg_tine", "did you mean 'ovseg_tiny'"),
    ("segment x.jpg --names sky --config-file ovseg_giant", "shipped: "),
    ("segment x.jpg --names sky --device cuda:9", "cuda:9"),
    ("segment x.jpg --names sky --export paint", "paint"),
    ("segment x.jpg --class-file gone.txt", "gone.txt"),
    ("segment x.jpg --names sky --weights words.txt --config-file ovseg_tiny", "words.txt"),
    ("segment x.jpg --names sky --opts MODEL.NOTHING 1", "MODEL.NOTHING"),
    ("segment x.jpg --names sky --opts MODEL.MASK_FORMER.MASK_THR 7", "MASK_THR"),
    ("segment x.jpg --names sky --output words.txt/deep", UNWRITABLE),
    # train
    (("train",), "--config-file: expected a path or the name of a shipped config"),
    (("train", *TINY, "SOLVER.MAX_ITER"), "SOLVER.MAX_ITER"),
    (("train", *TINY, "SOLVER.MAX_ITER", "2", "--eval-only"), "expected flags before KEY VALUE"),
    (("train", *TINY, "SOLVER.MAX_ITR", "2"), "SOLVER.MAX_ITER"),
    (("train", *TINY, "DATASETS.TRAIN", "gone.yaml"), "gone.yaml"),
    (("train", *TINY, "DATASETS.TRAIN", "tinyscapes_trian_sem_seg"), "tinyscapes_train_sem_seg"),
    (
        (
            "train",
            *TINY,
            *ONCE,
            "MODEL.WEIGHTS",
            "words.txt",
            "DATASETS.TRAIN",
            "garden/train.yaml",
        ),
        "words",
    ),
    (("train", "--config-file", "broken.yaml"), "broken.yaml"),
    (("train", *TINY, *ONCE, "OUTPUT_DIR", "words.txt"), UNWRITABLE),
    (
        ("train", *TINY, *ONCE, "OUTPUT_DIR", "used", "DATASETS.TRAIN", "garden/train.yaml"),
        "--resume",
    ),
    # eval
    (("eval",), "--config-file: expected a path or the name of a shipped config"),
    (("eval", *TINY, "DATASETS.TEST", "gone.yaml"), "gone.yaml"),
    (("eval", *TINY, "OUTPUT_DIR", "words.txt"), UNWRITABLE),
    (("eval", *TINY, "DATASETS.TEST", "tinyscapes_vall_sem_seg"), "tinyscapes_val_sem_seg"),
    (("eval", *TINY, "MODEL.WEIGHTS", ""), "MODEL.WEIGHTS: expected the weights to evaluate"),
    (("eval", *TINY, "MODEL.WEIGHTS", "gone.safetensors"), "gone.safetensors"),
    (
        (
            "eval",
            *TINY,
            "MODEL.WEIGHTS",
            "other.safetensors",
        ),
        "expected a full checkpoint",
    ),
    (("eval", *TINY, "DATASETS.TEST", "other_kind.yaml"), "other_kind.yaml"),
    (("eval", *TINY, "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "vold"), "TEXT_TEMPLATES: expected"),
    # mine
    ("mine", "arguments are required: --source, --output"),
    ("mine --source gone.json --output mined", "gone.json"),
    (("mine", *MINE, "--tagger", "spacy"), "invalid choice: 'spacy'"),
    (("mine", *MINE, "--captions", "many"), "many"),
    (("mine", *MINE, "--weights", "ovseg_tine"), "ovseg_tiny"),
    (("mine", *MINE, "--proposals", "grid:axb"), "grid:axb"),
    (("mine", *MINE, "--templates", "vold"), "vild"),
    (("mine", *MINE, "--workers", "0"), "at least 1 worker"),
    (("mine", *MINE, "--shard-size", "0"), "shard"),
    (("mine", *MINE[:-1], "words.txt"), UNWRITABLE),
    # train-clip
    (("train-clip",), "config"),
    (("train-clip", *CLIP), "pairs"),
    (("train-clip", *CLIP, "--pairs", "gone.tsv"), "gone.tsv"),
    (("train-clip", *CLIP, "--pairs", "gone.tsv", "--output", "words.txt"), UNWRITABLE),
    (("train-clip", *CLIP, "--pairs", "words.txt", "steps", "many"), "steps"),
    (("train-clip", *CLIP, "--pairs", "words.txt", "stepps", "3"), "steps"),
    (("train-clip", *CLIP, "--eval-only"), "add --eval-dataset or --eval-folder"),
    (("train-clip", *CLIP, "--eval-only", "--eval-dataset", "gone.yaml"), "gone.yaml"),
    (("train-clip", "--config-file", "clip_tny_ft", "--pairs", "x"), "clip_tiny_ft"),
    # convert
    ("convert clip", "arguments are required: input, output"),
    ("convert unet a.pth b.safetensors", "invalid choice: 'unet'"),
    ("convert clip gone.pt b.safetensors", "gone.pt"),
    ("convert clip words.txt b.safetensors", "words.txt"),
    ("convert swin words.txt b.safetensors --into ovseg_tiny", "--into goes with the kind clip"),
    ("convert clip words.txt x.jpg", "pass --overwrite"),
    ("convert clip gone.pt words.txt/b.safetensors", UNWRITABLE),
    # tune
    ("tune", "arguments are required: --dataset"),
    ("tune --dataset gone.yaml --config-file ovseg_tiny", "gone.yaml"),
    ("tune --dataset tinyscapes_test_sem_seg --config-file ovseg_tiny", "i-know-this-is"),
    (("tune", *GARDEN, "--ensemble-weights", "much"), "expected numbers with commas between"),
    (("tune", *GARDEN, "--thresholds", "7"), "7"),
    (("tune", *GARDEN, "--templates", "vold"), "vold"),
    (("tune", *GARDEN, "--metric", "IoU"), "IoU"),
    (("tune", *GARDEN, "--output", "words.txt"), UNWRITABLE),
    # compare
    ("compare used", "arguments are required: B"),
    ("compare result gone", "gone: "),
    ("compare x.jpg result", "x.jpg"),
    ("compare damaged damaged", "damaged"),
    ("compare result result --resamples 0", "at least 1 draw"),
    # decompose
    (("decompose", "--config-file", "ovseg_giant"), "shipped: "),
    (("decompose", "--config-file", "ovseg_tiny", "DATASETS.TEST", "()"), "got none"),
    (("decompose", "--config-file", "ovseg_tiny", "DATASETS.TEST", "gone.yaml"), "gone.yaml"),
    (("decompose", "--config-file", "pacl_tiny"), "expected OVSeg, got PACL"),
    (("decompose", "--config-file", "ovseg_tiny", "--output", "words.txt"), UNWRITABLE),
    (("decompose", "--config-file", "ovseg_tiny", "MODEL.WEIGHTS", "gone.pth"), "gone.pth"),
    # prepare
    ("prepare", "arguments are required: DATASET"),
    ("prepare ade", "invalid choice: 'ade'"),
    ("prepare ade20k --root nowhere", ""),
    ("prepare voc --split test", "invalid choice: 'test'"),
    ("prepare tinyscapes --train many", "expected a number >= 0, got many"),
    ("prepare tinyscapes --root words.txt", UNWRITABLE),
    ("prepare garden --folder words.txt", UNWRITABLE),
    ("prepare coco_stuff --workers 0", "expected a number >= 1, got 0"),
    ("prepare coco_captions --root nowhere", "nowhere"),
    # verify
    ("verify --root nowhere", "no label maps of a known dataset in nowhere"),
    ("verify gone.yaml", "gone.yaml"),
    ("verify ade20k_sem_seg_vall", "ade20k_sem_seg_val"),
    ("verify x.jpg", "x.jpg"),
    ("verify broken.yaml", "broken.yaml"),
    ("verify garden/val.yaml --sheets words.txt", UNWRITABLE),
    # benchmark
    ("benchmark --config-file ovseg_giant", "shipped: "),
    ("benchmark --size 64", "expected 2 arguments"),
    ("benchmark --benchmark ade", "valid: ade20k_150"),
    ("benchmark --config-file pacl_tiny", "expected OVSeg, got PACL"),
    ("benchmark --weights gone.pth", "gone.pth"),
    ("benchmark --weights gone.pth --output words.txt/a.json", UNWRITABLE),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as it comes about: a picture, a dataset, captions, and files that are damaged."""
    folder = tmp_path_factory.mktemp("folder")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "x.jpg")
    write_garden(folder / "garden", train=1, val=1)
    (folder / "captioned").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "captioned" / "a.jpg")
    (folder / "captioned" / "a.txt").write_text("a cat on the grass")
    (folder / "words.txt").write_text("some words\n")
    (folder / "broken.yaml").write_text("MODEL: [1, 2\n")
    (folder / "other_kind.yaml").write_text("- a\n- b\n")
    torch.save({"model": {"a": torch.ones(1)}}, folder / "other.safetensors")
    (folder / "used").mkdir()
    (folder / "used" / "last_checkpoint").write_text("model_0000001.pth")
    torch.save({"iteration": 1}, folder / "used" / "model_0000001.pth")
    write_folder(folder / "result" / "inference" / "world")
    damaged = folder / "damaged" / "inference" / "world"
    damaged.mkdir(parents=True)
    (damaged / "metrics.json").write_text(json.dumps({"sem_seg": 3}))
    (damaged / "manifest.json").write_text("{")
    return folder


def words_of(command) -> list[str]:
    return command.split() if isinstance(command, str) else list(command)


@pytest.mark.parametrize(
    ("command", "message"), WRONG, ids=[" ".join(words_of(c))[:70] for c, _ in WRONG]
)
def test_a_wrong_command_is_answered_in_a_line(
    command, message, folder, monkeypatch, caplog, capsys
):
    monkeypatch.chdir(folder)
    before = sorted(file for file in folder.rglob("*"))
    try:
        status = main(words_of(command))
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    told = printed.err + caplog.text
    assert status in (1, 2), printed.out
    assert "Traceback" not in told + printed.out
    assert message in told
    lines = [line for line in printed.err.splitlines() if "error: " in line]
    assert len(lines) == 1 or caplog.text, told
    assert "fault of the program" not in told
    made = {file.relative_to(folder).parts[0] for file in folder.rglob("*")}
    made -= {file.relative_to(folder).parts[0] for file in before}
    assert made <= {"out", "output", "mined"}, "a wrong command leaves nothing but its folder"


def test_at_least_five_of_each_command():
    counts = {}
    for command, _ in WRONG:
        counts[words_of(command)[0]] = counts.get(words_of(command)[0], 0) + 1
    assert len(WRONG) >= 60 and min(counts.values()) >= 5, counts
