"""The engine of all `datasets/prepare_<name>.py`: raw annotation files in, label files out.

What differs between datasets is a list of tasks and a function that turns the files of one task
into arrays. Everything else is here: processes, progress, going on after an interruption, files
that are there whole or not at all, bad files quarantined with their reason.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ovseg.data.prepare.made import files_of_others, note_made, require_apart
from ovseg.readers.pictures import ImageError, read_image
from ovseg.utils.files import atomic_path, reason_of, write_json
from ovseg.utils.folder_lock import BusyFolderError, only_run
from ovseg.utils.processes import exit_with_parent, map_unordered
from ovseg.utils.wording import counted

__all__ = [
    "PreparationError",
    "PreparationReport",
    "Task",
    "list_files",
    "prepare",
    "require_folder",
]

_logger = logging.getLogger(__name__)

_CHUNK = 16  # tasks per message to a worker
_LABELS, _COLOUR = "(H, W) uint8 or uint16", "(H, W, 3) uint8"
_ENCODINGS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    ".jpg": {"format": "JPEG"},
}


class PreparationError(RuntimeError):
    """A run that cannot go on; the text says what to do. What was finished before is kept."""


@dataclass(frozen=True)
class Task:
    """The files that belong together: what is read, and what is made of it.

    Args:
        sources: raw files; the first one stands for the task in messages.
        targets: files to write, ending in .png, .tif or .jpg, one per array of the conversion.
    """

    sources: tuple[Path, ...]
    targets: tuple[Path, ...]


Convert = Callable[[Task], "Sequence[np.ndarray | bytes] | None"]
"""From a task's sources to one array per target: labels (H, W) uint8 or uint16, pictures
(H, W, 3) uint8 RGB; or to the bytes of a file, which are written as they are.

None leaves the targets unwritten, for a file without any labelled pixel. ValueError and OSError set
the task aside. Workers get the function by pickling: it belongs to a module, or is a
`functools.partial` of one that does, or an object of such a class."""


@dataclass(frozen=True)
class PreparationReport:
    """What became of the tasks.

    Args:
        written: tasks whose targets were written.
        kept: tasks whose targets were there already.
        skipped: tasks without any labelled pixel.
        failed: the files quarantined (first sources of their tasks) and the reasons, sorted.
    """

    written: int = 0
    kept: int = 0
    skipped: int = 0
    failed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.written} written, {self.kept} there already, {self.skipped} without labels, "
            f"{len(self.failed)} quarantined"
        )

    def write(self, path: str | Path) -> None:
        """Write the figures and the reasons as JSON.

        Args:
            path: target file.
        """
        record = {
            "written": self.written,
            "kept": self.kept,
            "skipped_without_labels": self.skipped,
            "set_aside": [{"file": file, "reason": reason} for file, reason in self.failed],
        }
        with _writing(Path(path)):
            write_json(path, record)


def prepare(
    tasks: Sequence[Task],
    convert: Convert,
    *,
    workers: int = 1,
    progress: bool = False,
    force: bool = False,
    ours: bool = False,
) -> PreparationReport:
    """Make the targets of all tasks that are not there yet.

    Which files were made is noted in their folders (`.made_by_ovseg`). A file that is there and
    was not made here is kept where it is readable, and never written over or removed.

    Args:
        tasks: no two of them with a common target.
        convert: makes one task's arrays, see `Convert`.
        workers: processes; 1 converts in this one.
        progress: show a bar with the time left.
        force: make targets again that are there and readable.
        ours: all targets that are there are known to have been made here.

    Returns:
        The figures; a quarantined task does not stop the others.

    Raises:
        PreparationError: a target cannot be written (read-only, disk full), another run writes to
            the same folder, or a worker died. Every file written is whole. With `force`, a target
            is there that was not made here.
        ValueError: two tasks share a target, a target is a source, an ending is unknown, or there
            is no worker.
    """
    _check(tasks, workers)
    folders = sorted({target.parent for task in tasks for target in task.targets})
    outcomes: list[tuple[str, str, str]] = []
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_only_run(folder))
        targets = [target for task in tasks for target in task.targets]
        foreign = frozenset() if ours else files_of_others(targets)
        if force and foreign:
            raise PreparationError(
                f"{min(foreign)}: {counted(len(foreign), 'file')} would be written over that this "
                "did not make; choose another folder, or move them away"
            )
        one = partial(_do, convert=convert, force=force, foreign=foreign)
        bar = stack.enter_context(
            tqdm(total=len(tasks), unit="file", desc=_describe(folders), disable=not progress)
        )
        for finished in _run(one, tasks, workers):
            outcomes += finished
            bar.update(len(finished))
    counts = Counter(kind for kind, _, _ in outcomes)
    # A file of which several tasks make something is bad once.
    failed = sorted({(name, reason) for kind, name, reason in outcomes if kind == "failed"})
    return PreparationReport(
        counts["written"], counts["kept"], counts["skipped"], failed=tuple(failed)
    )


def require_folder(path: str | Path, remedy: str) -> Path:
    """Check that a folder of the raw data is there.

    Args:
        path: the folder.
        remedy: where it comes from, for the error message.

    Returns:
        The folder.

    Raises:
        PreparationError: it is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise PreparationError(f"expected the folder {folder}, which is not there\n{remedy}")
    return folder


def list_files(folder: str | Path, suffix: str, remedy: str) -> list[Path]:
    """List the files of a folder of raw data.

    Args:
        folder: the folder.
        suffix: ending of the files, such as ".png"; upper and lower case are the same.
        remedy: where they come from, for the error message.

    Returns:
        The files, sorted by name; hidden ones are left out.

    Raises:
        PreparationError: the folder is missing or holds no such file.
    """
    found = sorted(
        path
        for path in require_folder(folder, remedy).iterdir()
        if path.name.lower().endswith(suffix.lower()) and not path.name.startswith(".")
    )
    if not found:
        raise PreparationError(f"expected *{suffix} files in {folder}, got none\n{remedy}")
    return found


def _check(tasks: Sequence[Task], workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    targets = Counter(target for task in tasks for target in task.targets)
    doubled = [str(target) for target, count in targets.items() if count > 1]
    if doubled:
        raise ValueError(f"expected each target once, got twice: {', '.join(doubled[:5])}")
    require_apart((path for task in tasks for path in task.sources), targets)
    unknown = sorted({target.suffix for target in targets} - _ENCODINGS.keys())
    if unknown:
        raise ValueError(f"targets: expected endings among {[*_ENCODINGS]}, got {unknown}")


def _describe(folders: Sequence[Path]) -> str:
    return "/".join(folders[-1].parts[-2:]) if folders else ""


# -- one task -----------------------------------------------------------------------------------


def _do(
    tasks: Sequence[Task], *, convert: Convert, force: bool, foreign: Set[Path]
) -> list[tuple[str, str, str]]:
    """Do some tasks; gives kind of outcome, name and reason of each."""
    return [_do_one(task, convert, force, foreign) for task in tasks]


def _do_one(task: Task, convert: Convert, force: bool, foreign: Set[Path]) -> tuple[str, str, str]:
    name = str(task.sources[0])
    if not force and all(_is_readable(target) for target in task.targets):
        return "kept", name, ""
    if others := [target for target in task.targets if target in foreign]:
        return "failed", name, f"{others[0]} is there and was not made by this; move it away"
    try:
        arrays = convert(task)
        encoded = None
        if arrays is not None:
            pairs = zip(task.targets, arrays, strict=True)
            encoded = [(target, _encode(target, array)) for target, array in pairs]
    except (ValueError, OSError, MemoryError) as error:
        _remove(task.targets)
        reason = str(error).removeprefix(f"{name}: ")  # the name is told beside it
        return "failed", name, reason or type(error).__name__
    if encoded is None:
        _remove(task.targets)
        return "skipped", name, ""
    for target, content in encoded:
        with _writing(target), atomic_path(target) as partial_file:
            partial_file.write_bytes(content)
            note_made(target)
    return "written", name, ""


def _is_readable(target: Path) -> bool:
    if not target.is_file():
        return False
    try:
        read_image(target)  # decodes every pixel, of label maps as well
    except ImageError as error:
        _logger.warning("%s; it is made again", error)
        return False
    return True


def _encode(target: Path, array: np.ndarray | bytes) -> bytes:
    """Make a file's content in memory: what then fails is the disk, not the picture."""
    if isinstance(array, bytes):
        return array
    labels = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    fits = {".jpg": colour, ".png": labels or colour, ".tif": labels}[target.suffix]
    if not fits or array.size == 0:
        expected = {".jpg": _COLOUR, ".png": f"{_LABELS} or {_COLOUR}", ".tif": _LABELS}
        raise ValueError(
            f"expected {expected[target.suffix]} for {target.name}, got shape {array.shape} of "
            f"{array.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, **_ENCODINGS[target.suffix])
    return buffer.getvalue()


def _remove(targets: Sequence[Path]) -> None:
    """Remove what an earlier run made of files that give no labels now."""
    for target in targets:
        with _writing(target):
            target.unlink(missing_ok=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    # Whatever keeps one file from being written keeps all of them: stop, and say it once.
    try:
        yield
    except OSError as error:
        raise PreparationError(
            f"cannot write {target}: {reason_of(error)}\nmake room there, or make the "
            "folder writable, and start the same command again: what is finished is kept, and no "
            "file is half written"
        ) from error


# -- a run --------------------------------------------------------------------------------------


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold a folder for this run."""
    with ExitStack() as stack:
        try:
            with _writing(folder):
                stack.enter_context(only_run(folder, what="a preparation", patience=0))
        except BusyFolderError as error:
            raise PreparationError(str(error)) from error
        yield


def _run(
    one: Callable[[Sequence[Task]], list[tuple[str, str, str]]],
    tasks: Sequence[Task],
    workers: int,
) -> Iterator[list[tuple[str, str, str]]]:
    size = 1 if workers == 1 else _CHUNK
    chunks = iter([tasks[start : start + size] for start in range(0, len(tasks), size)])
    workers = min(workers, -(-len(tasks) // size))
    if workers <= 1:
        yield from map(one, chunks)
        return
    # Forking a process that runs threads (torch, OpenCV) may hang, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from map_unordered(pool, one, chunks, max_pending=2 * workers)
    except BrokenProcessPool as error:
        raise PreparationError(
            "a worker process ended before its work; it was probably killed for memory: use fewer "
            "workers. Finished files are kept: start the same command again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    exit_with_parent()
    cv2.setNumThreads(1)  # the processes share the cores already
