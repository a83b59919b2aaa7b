"""The commands that read files, with one of the files damaged."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ovseg.commands.train
import ovseg.commands.train_clip
import ovseg.miner  # noqa: F401 - loaded once, for every child
from ovseg.commands.run import main as run_ovseg
from tests.evaluation.results_folder import write_folder
from tests.fuzz.damage import damaged
from tests.fuzz.doors import DOORS, write_companions
from tests.fuzz.watched import Finding, watch

__all__ = ["TOOLS", "run_all"]

SECONDS = 240
_TINY = ("--config-file", "ovseg_tiny")
_MINE = ("--weights", "ovseg_tiny", "--proposals", "grid:2x2", "--tagger", "textblob")
_STEPS = ("batch_size", "1", "workers", "0", "steps", "1", "warmup", "0")
_LABELS = "ADEChallengeData2016/annotations/validation/a.png"


def _dataset(folder: Path, path: Path) -> tuple[str, ...]:
    """An evaluation on a picture and a label map, one of which is damaged, or their YAML."""
    for name, source in (("pictures", "picture"), ("labels", "segmentation_labels")):
        (folder / name).mkdir(exist_ok=True)
        whole = folder / f"{source}.png"
        shutil.copyfile(path if name in path.parts else whole, folder / name / "a.png")
    where = ("DATASETS.TEST", f"('{folder / 'a.yaml'}',)", "OUTPUT_DIR", str(folder / "out"))
    return ("eval", *_TINY, "--num-gpus", "0", "DATALOADER.NUM_WORKERS", "0", *where)


def _train_clip(folder: Path, path: Path) -> tuple[str, ...]:
    where = ("--pairs", str(path), "--image-root", str(folder), "--output", str(folder / "out"))
    return ("train-clip", "--config-file", "clip_tiny_ft", "--num-gpus", "0", *where, *_STEPS)


def _mine(folder: Path, path: Path) -> tuple[str, ...]:
    return ("mine", "--source", str(path), "--output", str(folder / "out"), *_MINE)


def _convert(folder: Path, path: Path) -> tuple[str, ...]:
    return ("convert", "ovseg", str(path), str(folder / "out.safetensors"), "--allow-pickle")


def _segment(folder: Path, path: Path) -> tuple[str, ...]:
    where = ("--output", str(folder / "out"), *_TINY)
    if path.suffix in (".json", ".csv", ".yaml", ".txt"):
        return ("segment", str(folder / "picture.png"), "--class-file", str(path), *where)
    return ("segment", str(path), "--names", "sky", "grass", *where)


def _compare(folder: Path, path: Path) -> tuple[str, ...]:
    return ("compare", str(folder / "first"), str(folder / "second"), "--resamples", "50")


def _prepare(dataset: str) -> Callable[[Path, Path], tuple[str, ...]]:
    return lambda folder, path: ("prepare", dataset, "--root", str(folder), "--split", "val")


# Command -> what it is given: a door, the place of the damaged file, the command line.
TOOLS: dict[str, Sequence[tuple[str, str, Callable[[Path, Path], tuple[str, ...]]]]] = {
    "ovseg convert": [
        (name, "", _convert)
        for name in ("torch", "torch_old", "torchscript", "safetensors", "pickle", "checkpoint")
    ],
    "ovseg compare": [
        (door, f"second/{DOORS[door].file}", _compare)
        for door in ("metrics", "npz_counts", "table")
    ],
    "ovseg prepare": [
        ("index", "ADE20K_2021_17_01/index_ade20k.pkl", _prepare("ade20k_full")),
        ("label_png", _LABELS, _prepare("ade20k")),
    ],
    "ovseg segment": [
        (name, "", _segment) for name in ("jpeg", "png", "webp", "tiff", "classes_json")
    ],
    "ovseg mine": [(f"captions_{name}", "", _mine) for name in ("json", "tsv", "tar", "parquet")],
    "ovseg eval": [
        ("dataset_yaml", "a.yaml", _dataset),
        ("png", "damaged/pictures/a.png", _dataset),
        ("label_png", "damaged/labels/a.png", _dataset),
    ],
    "ovseg train-clip": [(name, "", _train_clip) for name in ("pairs_tsv", "pairs_tar", "records")],
}


def run_all(name: str, seed: int, numbers: Sequence[int]) -> Iterator[Finding]:
    """Run a command on damaged files.

    Args:
        name: of the command.
        seed: all damage follows from it, the command and the number.
        numbers: of the inputs.

    Yields:
        What came of each: refused is status 1 or 2, accepted is 0.
    """

    def work(number: int, tell: Callable[[], None]) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(prefix="ovseg_fuzz_") as place:
            words = _lay_out(name, seed, number, Path(place))
            tell()
            return _run(words)

    def describe(number: int) -> bytes:
        return f"--tools, seed {seed}: {name}, {TOOLS[name][number % len(TOOLS[name])]}".encode()

    for number in numbers:  # a process each: a command may change what the next one sees
        yield from watch(work, [number], of=describe, seconds=SECONDS)


def _lay_out(name: str, seed: int, number: int, folder: Path) -> tuple[str, ...]:
    """Write what the command reads; gives its words."""
    door, place, words = TOOLS[name][number % len(TOOLS[name])]
    write_companions(folder)
    if name == "ovseg compare":
        write_folder(folder / "first")
        write_folder(folder / "second", right=0.7)
    if name == "ovseg eval":
        DOORS["dataset_yaml"].make(folder / "a.yaml")
    path = folder / (place or DOORS[door].file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        DOORS[door].make(path)
    data, _ = damaged(path.read_bytes(), DOORS[door].form, random.Random(f"{seed} {name} {number}"))
    path.write_bytes(data)
    return words(folder, path)


def _run(words: Sequence[str]) -> tuple[str, str]:
    os.environ["DETECTRON2_DATASETS"] = tempfile.gettempdir()
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            status: object = run_ovseg(list(words))
        except SystemExit as error:  # of argparse
            status = error.code
    text = stream.getvalue()
    odd = "Traceback" in text or "fault of the program" in text or status not in (0, 1, 2)
    if odd:
        return "traceback", f"{' '.join(words)}: status {status}: {text[-2000:]}"
    return ("accepted different" if status == 0 else "refused"), text[-300:]
