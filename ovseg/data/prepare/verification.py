"""Is a dataset on disk what it should be? Every fault comes with the way to mend it."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.d2.data import MetadataCatalog
from ovseg.data.catalog import DatasetFilesError, files_by_stem
from ovseg.data.prepare.contact_sheet import spread, write_contact_sheet
from ovseg.data.prepare.listing import read_listing
from ovseg.data.prepare.pascal_context import read_names
from ovseg.data.prepare.pipeline import PreparationError
from ovseg.data.prepare.subjects import Subject, find_subject
from ovseg.readers.pictures import ImageError, picture_mode, read_image, read_label
from ovseg.utils.processes import exit_with_parent
from ovseg.utils.wording import counted

__all__ = ["Complaint", "Verification", "verify"]

_SHOWN = 5  # files named in a complaint
_EXAMPLES = 10  # pictures on the contact sheet
_LEFT_OUT = 0.05  # share of pictures without labels above which a preparation was interrupted
_CHUNK = 32  # files per message to a worker
_HAVING = ("picture has", "pictures have")
_NAMED = ("label map or name of the split has", "label maps or names of the split have")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Complaint:
    """One fault of a dataset.

    Args:
        what: the fault.
        remedy: how to mend it.
        files: the files that have it, if it is a fault of files.
    """

    what: str
    remedy: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.what]
        if self.files:
            more = f", and {len(self.files) - _SHOWN} more" if len(self.files) > _SHOWN else ""
            lines.append(f"  files: {', '.join(self.files[:_SHOWN])}{more}")
        return "\n".join([*lines, f"  mend: {self.remedy}"])


@dataclass(frozen=True)
class Verification:
    """What was found out about a dataset.

    Args:
        name: the dataset.
        facts: how many pictures there are, how large they are, which classes occur.
        complaints: its faults; empty for a sound dataset.
        notes: what is worth knowing and no fault.
    """

    name: str
    facts: tuple[str, ...]
    complaints: tuple[Complaint, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = counted(len(self.complaints), "fault") if self.complaints else "sound"
        lines = [f"{self.name}: {state}", *(f"  {fact}" for fact in self.facts)]
        lines += [f"  note: {note}" for note in self.notes]
        for complaint in self.complaints:
            lines.append("  FAULT: " + str(complaint).replace("\n", "\n  "))
        return "\n".join(lines)


@dataclass(frozen=True)
class _File:
    """What one pair of files is like; `faults` are kinds of `_FAULTS` with details."""

    name: str
    size: tuple[int, int] | None = None
    mode: str = ""
    pixels: Mapping[int, int] = field(default_factory=dict)
    faults: tuple[tuple[str, str], ...] = ()


# What to say of faults of single files (one, several, the rest), and what to do; {again} makes the
# label maps again.
_FAULTS = {
    "picture": (
        ("picture", "pictures"),
        "cannot be read",
        "unpack their archive again; if they stay damaged, get the archive again",
    ),
    "label": (("label map", "label maps"), "cannot be read, or the file is none", "{again}"),
    "size": (
        ("label map differs", "label maps differ"),
        "in size from the picture",
        "picture and label map are of different versions of the data: unpack the pictures again, "
        "then {again}",
    ),
    "bits": (
        ("label map has", "label maps have"),
        "8 bits, where {classes} classes and the ignore label {ignore} need 16",
        "whatever wrote them has cut numbers off: {again}",
    ),
    "range": (
        ("label map holds", "label maps hold"),
        "labels outside 0-{last} and {ignore} (ignored): {details}",
        "these may be raw ids, or labels of another class list: {again}",
    ),
}


def verify(
    name: str,
    *,
    root: Path | None = None,
    subset: bool = False,
    sheet: Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Verification:
    """Check the files of a dataset; every picture and label map is read in full.

    Args:
        name: a dataset of the catalogue, or the path of a YAML file that describes one.
        root: folder of all datasets; None takes it from the environment.
        subset: the files are a part of the set on purpose: leave the published counts aside.
        sheet: PNG to write with ten pictures and their labels; None writes none.
        workers: processes; 1 reads in this one.
        progress: show a bar with the time left.

    Returns:
        Facts and faults.

    Raises:
        ValueError: there is no such dataset, or its YAML file is unusable.
        FileNotFoundError: there is no such YAML file.
    """
    subject = find_subject(name, root)
    complaints, notes = _check_order(subject)
    try:
        images, labels = _list_files(subject)
    except DatasetFilesError as error:
        missing = Complaint(str(error).splitlines()[0], subject.again)
        return Verification(subject.name, (), (*complaints, missing), tuple(notes))
    found, remarks = _check_names(subject, images, labels, subset)
    complaints, notes = complaints + found, notes + remarks
    stems = sorted(images.keys() & labels.keys())
    jobs = [(stem, images[stem], labels[stem]) for stem in stems]
    files = list(_check_files(subject, jobs, workers, progress))
    complaints += _sum_up(subject, files)
    if sheet is not None:
        sound = [job for job, file in zip(jobs, files, strict=True) if not _undrawable(file)]
        chosen = [sound[i] for i in spread(len(sound), _EXAMPLES)]
        if chosen:
            write_contact_sheet(sheet, chosen, subject.classes, subject.ignore_label)
    empty = [file for file in files if file.size and not _labelled(subject, file)]
    if empty:
        notes.append(f"{len(empty)} label maps have nothing but ignored pixels")
    return Verification(subject.name, _facts(subject, files), tuple(complaints), tuple(notes))


def _undrawable(file: _File) -> bool:
    return any(kind in ("picture", "label", "size") for kind, _ in file.faults)


def _labelled(subject: Subject, file: _File) -> int:
    return sum(n for value, n in file.pixels.items() if value != subject.ignore_label)


# -- the set as a whole ---------------------------------------------------------------------------


def _check_order(subject: Subject) -> tuple[list[Complaint], list[str]]:
    """Hold class names in the catalogue and in files of the dataset against the class list."""
    complaints, notes = [], []
    wanted = [name.strip() for name in subject.classes]
    given = [
        name.strip() for name in MetadataCatalog.get(subject.name).get("stuff_classes") or wanted
    ]
    differing = [i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b]
    if len(given) != len(wanted) or (differing and sorted(given) == sorted(wanted)):
        place = f"; the first difference is label {differing[0]}: " if differing else ""
        names = f"{given[differing[0]]!r} instead of {wanted[differing[0]]!r}" if differing else ""
        complaints.append(
            Complaint(
                f"the catalogue has the classes in another order than the class list, or others: "
                f"{len(given)} instead of {len(wanted)}{place}{names}",
                "something else has registered this name; register your data under another one",
            )
        )
    elif differing:
        renamed = ", ".join(f"{given[i]!r} for {wanted[i]!r}" for i in differing[:_SHOWN])
        number = counted(len(differing), "class", "classes")
        notes.append(f"the catalogue calls {number} by other names: {renamed}")
    for file, classes in subject.name_files:
        if file.is_file():
            try:
                read_names(file, classes)
            except PreparationError as error:
                what, _, remedy = str(error).partition("\n")
                complaints.append(Complaint(what, f"{remedy}; then {subject.again}"))
    return complaints, notes


def _list_files(subject: Subject) -> tuple[dict[str, Path], dict[str, Path]]:
    if subject.records is not None:
        pairs = [(Path(r["file_name"]), Path(r["sem_seg_file_name"])) for r in subject.records]
        return {str(a): a for a, _ in pairs}, {str(a): b for a, b in pairs}
    return (
        files_by_stem(subject.images, subject.image_suffix, subject.name),
        files_by_stem(subject.labels, subject.label_suffix, subject.name),
    )


def _check_names(
    subject: Subject, images: Mapping[str, Path], labels: Mapping[str, Path], subset: bool
) -> tuple[list[Complaint], list[str]]:
    complaints, notes = [], []
    expected: Iterable[str] = images
    if subject.listing is not None:
        try:
            expected = read_listing(subject.listing, subject.again)
        except PreparationError as error:
            what, _, remedy = str(error).partition("\n")
            complaints.append(Complaint(what, remedy))
            expected = labels
    names = set(expected)
    without_picture = sorted((labels.keys() | names) - images.keys())
    if without_picture and not (subset and not labels.keys() - images.keys()):
        complaints.append(
            Complaint(
                f"{counted(len(without_picture), *_NAMED)} no picture in {subject.images}",
                "unpack the archive of the pictures again; remove label maps of other data",
                tuple(without_picture),
            )
        )
    without_labels = sorted((names & images.keys()) - labels.keys())
    few = len(without_labels) <= _LEFT_OUT * len(names)
    if without_labels and subject.partial and (few or subset):
        notes.append(
            f"{counted(len(without_labels), *_HAVING)} no label map; such with nothing but ignored "
            "pixels are left out"
        )
    elif without_labels and not subset:
        complaints.append(
            Complaint(
                f"{counted(len(without_labels), *_HAVING)} no label map in {subject.labels}",
                subject.again,
                tuple(without_labels),
            )
        )
    if subject.listing is not None and names:
        foreign = sorted(labels.keys() - names)
        if foreign:
            complaints.append(
                Complaint(
                    f"{counted(len(foreign), 'label map is', 'label maps are')} not named in "
                    f"{subject.listing}",
                    f"remove them from {subject.labels}: they are of another split",
                    tuple(foreign),
                )
            )
    count = len(images.keys() & (names if subject.partial else labels.keys()))
    if not subset:
        complaints += _check_count(subject, count)
    return complaints, notes


def _check_count(subject: Subject, count: int) -> Iterator[Complaint]:
    if subject.count is not None and count != subject.count:
        yield Complaint(
            f"{counted(count, 'picture')}{'' if subject.partial else ' with labels'}, where the "
            f"published set has {subject.count}",
            f"unpack all archives, then {subject.again}; with --subset a part is enough",
        )


# -- single files ---------------------------------------------------------------------------------


def _check_files(
    subject: Subject, jobs: Sequence[tuple[str, Path, Path]], workers: int, progress: bool
) -> Iterator[_File]:
    check = partial(_check_pair, classes=len(subject.classes), ignore_label=subject.ignore_label)
    bar = partial(tqdm, total=len(jobs), unit="file", desc=subject.name, disable=not progress)
    if workers == 1 or len(jobs) <= _CHUNK:
        yield from bar(map(check, jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        yield from bar(pool.map(check, jobs, chunksize=_CHUNK))


def _start_worker() -> None:
    exit_with_parent()
    cv2.setNumThreads(1)


def _check_pair(job: tuple[str, Path, Path], *, classes: int, ignore_label: int) -> _File:
    name, picture, label_file = job
    faults: list[tuple[str, str]] = []
    size = None
    try:
        size = read_image(picture).shape[:2]
    except ImageError as error:
        faults.append(("picture", str(error)))
    try:
        labels = read_label(label_file)
    except ImageError as error:
        return _File(name, faults=(*faults, ("label", str(error))))
    mode = picture_mode(label_file)
    if size is not None and size != labels.shape:
        faults.append(("size", f"{size} and {labels.shape}"))
    if ignore_label > 255 and not mode.startswith("I"):
        faults.append(("bits", mode))
    values, counts = np.unique(labels, return_counts=True)
    pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    outside = [value for value in pixels if value >= classes and value != ignore_label]
    if outside:
        faults.append(("range", ", ".join(map(str, outside))))
    return _File(name, labels.shape, mode, pixels, tuple(faults))


def _sum_up(subject: Subject, files: Sequence[_File]) -> Iterator[Complaint]:
    """One complaint per kind of fault, naming the files."""
    for kind, (counted_as, what, remedy) in _FAULTS.items():
        having = [(f.name, detail) for f in files for k, detail in f.faults if k == kind]
        if not having:
            continue
        values = {value for _, detail in having for value in detail.split(", ")}
        text = f"{counted(len(having), *counted_as)} " + what.format(
            classes=len(subject.classes),
            last=len(subject.classes) - 1,
            ignore=subject.ignore_label,
            details=", ".join(sorted(values, key=lambda v: (len(v), v))[:10]),
        )
        if kind in ("picture", "label"):
            text += f", the first: {having[0][1]}"
        yield Complaint(text, remedy.format(again=subject.again), tuple(name for name, _ in having))


def _facts(subject: Subject, files: Sequence[_File]) -> tuple[str, ...]:
    read = [file for file in files if file.size is not None]
    if not read:
        return ("no label map could be read",)
    sizes = sorted((file.size for file in read if file.size), key=lambda s: s[0] * s[1])
    pixels = sum(sum(file.pixels.values()) for file in read)
    labelled = sum(_labelled(subject, file) for file in read)
    present = {v for file in read for v in file.pixels if v < len(subject.classes)}
    modes = sorted({"16 bits" if file.mode.startswith("I") else "8 bits" for file in read})
    return (
        f"{counted(len(files), 'picture')} with labels, {sizes[0][1]} x {sizes[0][0]} to "
        f"{sizes[-1][1]} x {sizes[-1][0]} pixels, label maps of {' and '.join(modes)}",
        f"{len(present - {subject.ignore_label})} of {len(subject.classes)} classes occur, "
        f"{100 * labelled / pixels:.1f} % of the pixels are labelled",
    )
