"""Fuzzing one reader by what code an input reaches, with atheris.

The corpus begins with the door's valid file and what once broke; damage is libFuzzer's and, as
often, that of `tests.fuzz.damage`. What is found is written into --folder, and
`python -m tests.fuzz.run --again FILE` reads it once more.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

CORPUS = Path(__file__).parent / "corpus"
_INSTRUMENTED = ["ovseg", "PIL", "yaml", "safetensors"]


def main(words: Sequence[str] | None = None) -> None:
    """Fuzz until the time is over or something is found; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage_guided")
    parser.add_argument("door", metavar="READER", help="a door of tests.fuzz.doors, such as png")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("output/fuzz_guided"))
    parser.add_argument("--corpus", type=Path, help="folder that keeps the corpus between runs")
    args = parser.parse_args(words)
    try:
        atheris = importlib.import_module("atheris")
    except ImportError as error:
        parser.error(f"atheris is not installed ({error}); pip install 'ovseg[fuzz]'")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz import doors, watched
        from tests.fuzz.damage import damaged
    if args.door not in doors.DOORS:
        parser.error(f"expected a reader of {', '.join(doors.DOORS)}, got {args.door!r}")
    door = doors.DOORS[args.door]
    place = Path(tempfile.mkdtemp(prefix="ovseg_fuzz_"))
    doors.write_companions(place)
    path = place / door.file
    door.make(path)
    corpus = args.corpus or place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate([path, *sorted((CORPUS / args.door).glob("*"))]):
        shutil.copyfile(file, corpus / f"seed_{number}")
    found = args.folder / args.door
    found.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        outcome, text, _ = watched.attempt(door, path)
        if outcome in watched.BAD:
            name = f"{outcome}-{hashlib.sha256(data).hexdigest()[:12]}{path.suffix}"
            (found / name).write_bytes(data)
            raise RuntimeError(f"{outcome}: {text[:2000]}")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, most)
        return damaged(data, door.form, rng)[0][:most]

    door.read(path)  # loads what the reader needs
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    flags = [f"-max_total_time={args.seconds}", f"-timeout={watched.SECONDS}"]
    flags += [f"-artifact_prefix={found}/", f"-rss_limit_mb={resident + 1024}", "-max_len=200000"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
