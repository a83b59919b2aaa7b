"""What is killed: small runs of the real commands, and what of them must come out equal."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ovseg.tinyscapes import render_scene, write_split
from ovseg.weights.load import read_state_dict
from tests.faults.runs import serve

__all__ = ["SCENARIOS", "Scenario"]

OVSEG = (sys.executable, "-m", "ovseg")
RUNS = (sys.executable, "-m", "tests.faults.runs")
# The bundled model's shape with less of everything: a step takes a fraction of a second.
SMALL = (
    *("MODEL.WEIGHTS", "random", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.LOG_PERIOD", "1"),
    *("DATALOADER.NUM_WORKERS", "1", "SEED", "3", "OUTPUT_DIR"),
)


@dataclass(frozen=True)
class Scenario:
    """A run that may be killed and started again.

    Args:
        name: of the scenario.
        prepare: writes what the run reads into a folder.
        command: from that folder and an output folder to the command line.
        digest: from the output folder of a finished run to what must be equal.
        resume: words that the command takes when it is started again.
    """

    name: str
    prepare: Callable[[Path], None]
    command: Callable[[Path, Path], tuple[str, ...]]
    digest: Callable[[Path], str]
    resume: tuple[str, ...] = ()


def draw(**counts: int) -> Callable[[Path], None]:
    """Write splits of tinyscapes."""

    def prepare(folder: Path) -> None:
        for split, count in counts.items():
            write_split(folder, split, count, workers=1)

    return prepare


def write_captioned(folder: Path) -> None:
    """Write pictures with captions beside them."""
    (folder / "captioned").mkdir()
    for number in range(24):
        scene = render_scene("train", number)
        Image.fromarray(scene.image).save(folder / "captioned" / f"{number}.png")
        (folder / "captioned" / f"{number}.txt").write_text(scene.captions[0])


def write_pairs(folder: Path) -> None:
    """Write crops and a table of them, in the trainer's TSV form."""
    lines = ["title\tfilepath"]
    for number in range(16):
        Image.fromarray(render_scene("train", number).image[:64, :64]).save(
            folder / f"{number}.png"
        )
        lines.append(f"a photo of a {('cat', 'dog', 'boat')[number % 3]}.\t{number}.png")
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")


def of_files(patterns: Iterable[str]) -> Callable[[Path], str]:
    """Hash the files of a run that nothing but its input decides."""

    def digest(folder: Path) -> str:
        found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        total = hashlib.sha256()
        for path in found:
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
        return f"{len(found)} files {total.hexdigest()}"

    return digest


def of_weights(name: str) -> Callable[[Path], str]:
    """Hash the tensors of a weight file and the losses on the way to it."""

    def digest(folder: Path) -> str:
        total = hashlib.sha256()
        for key, tensor in sorted(read_state_dict(folder / name).items()):
            total.update(key.encode() + tensor.contiguous().numpy().tobytes())
        losses = {}
        for line in (folder / "metrics.json").read_text().splitlines():
            row = json.loads(line)
            if "total_loss" in row:
                losses[row["iteration"]] = row["total_loss"]
        return f"{len(losses)} losses {sorted(losses.items())} {total.hexdigest()}"

    return digest


def of_scores(folder: Path) -> str:
    """All that the pictures decide in the results of an evaluation."""
    [metrics] = folder.glob("inference/*/metrics.json")
    found = json.loads(metrics.read_text())
    found.pop("environment", None)
    tables = {path.name: path.read_text() for path in sorted(metrics.parent.glob("*.csv"))}
    return json.dumps([found["sem_seg"], found["images"], tables], sort_keys=True)


def of_rows(folder: Path) -> str:
    """All results of an ablation but the time that they took."""
    rows = {}
    for file in sorted(folder.glob("seed-0/*/result.json")):
        rows[file.parent.name] = {**json.loads(file.read_text()), "seconds": None}
    return json.dumps(rows, sort_keys=True)


def start_server(folder: Path) -> None:
    """Serve a file as long as this process lives, and write down where."""
    (folder / "address").write_text(serve())


SCENARIOS = (
    Scenario(
        "preparation",
        prepare=lambda folder: None,
        command=lambda _, output: (
            *(*OVSEG, "prepare", "tinyscapes", "--root", str(output), "--workers", "2"),
            *("--train", "160", "--val", "20", "--test", "0"),
        ),
        digest=of_files(["tinyscapes/*2017/*", "tinyscapes/*/*2017/*", "tinyscapes/*/*.json"]),
    ),
    Scenario(
        "training",
        prepare=draw(train=8),
        command=lambda _, output: (
            *(*OVSEG, "train", "--config-file", "ovseg_tiny", "--num-gpus", "0"),
            *("SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "2", "DATASETS.TEST", "()"),
            *(*SMALL, str(output)),
        ),
        digest=of_weights("model_final.safetensors"),
        resume=("--resume",),
    ),
    Scenario(
        "training of a CLIP",
        prepare=write_pairs,
        command=lambda folder, output: (
            *(*OVSEG, "train-clip", "--config-file", "clip_tiny_ft", "--num-gpus", "0"),
            *("--pairs", str(folder / "pairs.tsv"), "--output", str(output)),
            *(
                "batch_size",
                "4",
                "workers",
                "0",
                "steps",
                "12",
                "warmup",
                "1",
                "checkpoint_period",
                "3",
            ),
        ),
        digest=of_weights("clip.safetensors"),
        resume=("--resume",),
    ),
    Scenario(
        "mining",
        prepare=write_captioned,
        command=lambda folder, output: (
            *(*OVSEG, "mine", "--source", str(folder / "captioned"), "--output", str(output)),
            *("--weights", "ovseg_tiny", "--proposals", "grid:2x2", "--tagger", "textblob"),
            *("--shard-size", "3", "--batch-size", "1", "--export", "tsv"),
        ),
        digest=of_files(["shards/*.parquet", "manifest.json", "quarantine.jsonl", "tsv/**/*.*"]),
    ),
    Scenario(
        "evaluation",
        prepare=draw(val=16),
        command=lambda _, output: (
            *(*OVSEG, "eval", "--config-file", "ovseg_tiny", "--num-gpus", "0"),
            *("DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR", str(output)),
        ),
        digest=of_scores,
        resume=("--resume",),
    ),
    Scenario(
        "ablation",
        prepare=lambda folder: None,
        command=lambda _, output: (*RUNS, "ablation", str(output)),
        digest=of_rows,
    ),
    Scenario(
        "download",
        prepare=start_server,
        command=lambda folder, output: (
            *(*RUNS, "download", (folder / "address").read_text(), str(output)),
        ),
        digest=of_files(["*"]),
    ),
)
