"""`make fuzz`: damaged files through every reader and through the commands; counts what came of it.

Every input follows from the seed, its door and its number. One that ends in a crash, a hang, memory
or a traceback, or is taken in spite of its checksum, is kept as FOLDER/DOOR/SEED-NUMBER.ENDING, and
`python -m tests.fuzz.run --again FILE...` reads it once more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fuzz.doors import DOORS, write_companions
from tests.fuzz.tools import TOOLS, run_all
from tests.fuzz.watched import BAD, OUTCOMES, Finding, attempt, read_all, watch

__all__ = ["fuzz", "main", "replay"]


def fuzz(
    inputs: int, tools: int, seed: int, folder: Path, doors: Sequence[str]
) -> dict[str, Counter[str]]:
    """Damage and read.

    Args:
        inputs: number of all inputs.
        tools: how many of them go through the commands.
        seed: what the damage follows from.
        folder: where bad inputs go.
        doors: names of the doors.

    Returns:
        Counts of `OUTCOMES` by door and by command.
    """
    counts: dict[str, Counter[str]] = {}
    for name, numbers in _share(doors, inputs - tools).items():
        endings = Path(DOORS[name].file).suffix
        counts[name] = _collect(read_all(name, seed, numbers), folder / name, seed, endings)
    for name, numbers in _share(list(TOOLS), tools).items():
        counts[name] = _collect(
            run_all(name, seed, numbers), folder / name.replace(" ", "_"), seed, ".txt"
        )
    return counts


def replay(file: Path) -> Finding:
    """Read a kept input in a process of its own, or run a command once more.

    Args:
        file: its folder has the name of its door or command.

    Returns:
        What came of it; "accepted equal" stands for any that was taken.
    """
    command = file.parent.name.replace("_", " ")
    if command in TOOLS:
        seed, number = map(int, file.stem.rsplit("-", 1))
        return next(run_all(command, seed, [number]))
    door = DOORS[file.parent.name]
    with tempfile.TemporaryDirectory(prefix="ovseg_fuzz_") as folder:
        write_companions(Path(folder))
        path = Path(folder) / door.file

        def work(_: int, tell: object) -> tuple[str, str]:
            door.make(path)
            door.read(path)
            path.write_bytes(file.read_bytes())
            tell()  # type: ignore[operator]
            outcome, text, _value = attempt(door, path)
            return ("accepted equal" if outcome == "accepted" else outcome), text

        return next(watch(work, [0], of=lambda _: b""))


def _share(names: Sequence[str], inputs: int) -> dict[str, range]:
    few, more = divmod(max(inputs, 0), max(len(names), 1))
    shares = {name: range(few + (place < more)) for place, name in enumerate(names)}
    return {name: share for name, share in shares.items() if share}


def _collect(findings: Iterable[Finding], folder: Path, seed: int, ending: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for finding in findings:
        counts[finding.outcome] += 1
        if finding.outcome in BAD:
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"{seed}-{finding.number}{ending}"
            kept.write_bytes(finding.data)
            print(f"{finding.outcome}: {kept}: {finding.text[:300]}", flush=True)
    seconds = time.monotonic() - began
    print(f"{folder.name}: {counts.total()} inputs in {seconds:.0f} s", flush=True)
    return counts


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz and print the table; the status is 1 where something bad came."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--tools", type=int, help="of them through commands (default: one in 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(DOORS), default=list(DOORS))
    parser.add_argument("--folder", type=Path, default=Path("output/fuzz"), help="of bad inputs")
    parser.add_argument("--again", nargs="+", type=Path, metavar="FILE", help="read kept inputs")
    args = parser.parse_args(words)
    if args.again:
        found = [replay(file) for file in args.again]
        for file, finding in zip(args.again, found, strict=True):
            print(f"{file}: {finding.outcome}: {finding.text[:2000]}")
        return int(any(finding.outcome in BAD for finding in found))
    tools = args.inputs // 20 if args.tools is None else args.tools
    counts = fuzz(args.inputs, tools, args.seed, args.folder, args.only)
    counts["all"] = sum(counts.values(), Counter())
    rows = [[name, c.total(), *(c[o] for o in OUTCOMES)] for name, c in counts.items()]
    print(tabulate(rows, headers=["", "inputs", *OUTCOMES]))
    return int(any(counts["all"][outcome] for outcome in BAD))


if __name__ == "__main__":
    sys.exit(main())
