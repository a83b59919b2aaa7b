"""Segmenting many files in one go: finding them, naming the results, reporting those that fail."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.exports import Exporter
from ovseg.large import OVERLAP, segment_large
from ovseg.large_segmentation import LargeSegmentation
from ovseg.readers.pictures import IMAGE_SUFFIXES
from ovseg.readers.rasters import import_rasterio
from ovseg.segmentation import Segmentation, check_views, result_paths
from ovseg.utils.pictures import is_tiff
from ovseg.utils.result_files import is_result

if TYPE_CHECKING:
    from ovseg.predictor import Predictor
    from ovseg.vocab import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One thing that was asked for.

    Attributes:
        path: the file.
        error: why it is no usable input; None for a file.
    """

    path: Path
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: the input file.
        segmentation: the result, or None if it failed.
        files: paths written, by kind (see ``Segmentation.save``).
        seconds: time taken, reading and writing included.
        error: the reason of the failure, or None.
    """

    path: Path
    segmentation: Segmentation | LargeSegmentation | None = None
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    def describe(self) -> str:
        """Say in plain text what was found and written, or why it failed.

        Returns:
            Lines without a final newline.
        """
        if self.segmentation is None:
            return f"FAILED: {self.error}"
        height, width = self.segmentation.labels.shape
        files = ", ".join(path.name for path in self.files.values())
        return f"{width} x {height}, {self.seconds:.2f} s\n{self.segmentation.table()}\n-> {files}"


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Expand files, folders and patterns into image files.

    Args:
        inputs: a file, a folder (its image files, not its subfolders') or a pattern with
            ``*``, ``?``, ``[...]``, ``**``. An existing file is never read as a pattern.

    Returns:
        The files in the order asked for, sorted within a folder or pattern, each once; an input
        that gives no file is kept with its error. Results of earlier runs are left out.
    """
    sources: list[Source] = []
    for item in (os.fspath(given) for given in inputs):
        path = Path(item).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            error = f"no image files in this folder (looked for {', '.join(IMAGE_SUFFIXES)})"
        elif path.exists() or not glob.has_magic(item):
            found, error = [path] if path.exists() else [], "no such file"
        else:
            matches = map(Path, sorted(glob.glob(str(path), recursive=True)))
            found = [match for match in matches if match.is_file()]
            error = "no file matches this pattern"
        sources += [Source(p) for p in found] or [Source(path, error)]
    once: dict[Path, Source] = {}
    for source in sources:
        once.setdefault(source.path.resolve(), source)
    results = [file for file in once if is_result(file)]
    if results:
        shown = ", ".join(file.name for file in results[:3])
        more = f" and {len(results) - 3} more" if len(results) > 3 else ""
        _log.warning("left out, as they are results of earlier runs: %s%s", shown, more)
        if len(results) == len(once):
            return [Source(results[0], "only results of earlier runs, no pictures to segment")]
    return [source for file, source in once.items() if file not in results]


def output_stems(
    paths: Sequence[Path], *, is_free: Callable[[str], bool] = lambda stem: True
) -> list[str]:
    """Name the results so that none overwrites another's.

    A file's own stem where it is alone with it; further files of that stem get ``_2``, ``_3``.
    Upper and lower case are not told apart, as on some file systems.

    Args:
        paths: input files.
        is_free: whether results of a stem would replace nobody else's file.

    Returns:
        One name per path.
    """
    own = {path.stem.casefold() for path in paths}
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, count = path.stem, 1
        while (
            stem.casefold() in taken or (count > 1 and stem.casefold() in own) or not is_free(stem)
        ):
            count += 1
            stem = f"{path.stem}_{count}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def segment_files(
    predictor: Predictor,
    sources: Sequence[Source],
    vocabulary: Vocabulary,
    output: str | os.PathLike[str],
    *,
    views: Sequence[str] = ("overlay",),
    proposals: bool = False,
    min_region_area: int = 0,
    threshold: float = 0.0,
    exporters: Sequence[Exporter] = (),
    tile: int | None = None,
    overlap: float = OVERLAP,
) -> Iterator[Outcome]:
    """Segment files one after the other and write each result at once.

    A file that cannot be segmented is reported with its reason, and the others go on. Results
    replace earlier results only: where a file of another origin has a result's name, the result
    gets another.

    Args:
        predictor: the model.
        sources: what :func:`find_images` returned.
        vocabulary: what to look for.
        output: folder for the results; made if missing.
        views: see ``Segmentation.save``.
        proposals: see ``Segmentation.save``.
        min_region_area: see ``Predictor.segment``.
        threshold: see ``Predictor.segment``.
        exporters: receive each result, too; whoever made them calls their ``finish``.
        tile: segment large pictures in tiles of so many pixels a side, with a bar of progress; see
            ``ovseg.large.segment_large`` and :func:`check_tiled`.
        overlap: of the tiles.

    Yields:
        One outcome per source, in order.

    Raises:
        ValueError: an unknown view, or what tiles do not go with.
        ImportError: tiles of a TIFF, and rasterio is not installed.
        OSError: the output folder cannot be made.
    """
    check_views(views)
    if tile is not None:
        check_tiled(
            sources, proposals=proposals, min_region_area=min_region_area, exports=bool(exporters)
        )
    Path(output).mkdir(parents=True, exist_ok=True)

    def is_free(stem: str) -> bool:
        taken = [p for p in result_paths(output, stem, views).values() if p.exists()]
        others = [p for p in taken if not is_result(p)]
        if others:
            _log.warning("%s is no result of this package and stays as it is", others[0])
        return not others

    stems = output_stems([source.path for source in sources], is_free=is_free)
    for source, stem in zip(sources, stems, strict=True):
        if source.error is not None:
            yield Outcome(source.path, error=source.error)
            continue
        start = time.perf_counter()
        try:
            result: Segmentation | LargeSegmentation
            if tile is not None:
                result = segment_large(
                    predictor,
                    source.path,
                    vocabulary,
                    tile=tile,
                    overlap=overlap,
                    threshold=threshold,
                    progress=True,
                )
                files = result.save(output, stem=stem, views=views)
            else:
                result = predictor.segment(
                    source.path,
                    vocabulary,
                    proposals=proposals,
                    min_region_area=min_region_area,
                    threshold=threshold,
                )
                files = result.save(output, stem=stem, views=views, proposals=proposals)
                for exporter in exporters:
                    exporter.add(result, stem=stem, source=source.path)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other files go on
            _log.debug("%s failed", source.path, exc_info=True)
            yield Outcome(source.path, error=f"{type(error).__name__}: {error}")
            continue
        yield Outcome(source.path, result, files, time.perf_counter() - start)


def check_tiled(
    sources: Sequence[Source], *, proposals: bool, min_region_area: int, exports: bool
) -> None:
    """Refuse what large pictures in tiles do not go with.

    Args:
        sources: the files.
        proposals: whether the model's masks are wanted; each tile has its own.
        min_region_area: parts to be merged; that takes a map of eight bytes a pixel.
        exports: whether results are wanted for other tools, which takes a mask of each class.

    Raises:
        ValueError: one of them is wanted.
        ImportError: a file is a TIFF, and rasterio is not installed.
    """
    flags = {
        "--proposals": proposals,
        "--min-region-area": min_region_area,
        "--export": exports,
    }
    if wanted := [flag for flag, value in flags.items() if value]:
        raise ValueError(f"--tile: expected it without {', '.join(wanted)}; leave one of them out")
    if any(is_tiff(source.path) for source in sources):
        import_rasterio()


# -- vocabularies from the command line --------------------------------------------------------


def split_names(
    arguments: Sequence[str], *, has_input: bool = True
) -> tuple[list[str], str | None]:
    """Read class names as people type them on a command line.

    Names are separated by spaces and may hold commas ("building, edifice" is one class). Two
    forms can only be meant as a list with commas and are split: a single argument
    ``sky,red star,tree``, and arguments that end or begin with a comma, ``sky, red star, tree``.

    Args:
        arguments: the words after ``--class-names``.
        has_input: whether pictures are named elsewhere; if not, a word that is a file or folder
            is taken for one of them.

    Returns:
        The names, and a remark for the user where commas were split or kept.

    Raises:
        ValueError: a word is a picture's path.
    """
    arguments = [argument.strip() for argument in arguments]
    for word in arguments:
        is_path = Path(word).suffix.lower() in IMAGE_SUFFIXES or (
            Path(word).exists() and (not has_input or os.sep in word)
        )
        if is_path:
            raise ValueError(
                f"--class-names: expected names, got {word!r}, which is a path; pictures come "
                "after --input (a class of that name goes into a class file)"
            )
    loose = any(a.startswith(",") or a.endswith(",") for a in arguments)
    if loose or (len(arguments) == 1 and "," in arguments[0]):
        names = [" ".join(part.split()) for part in " ".join(arguments).split(",")]
        names = [name for name in names if name]
        return names, (
            f"read as {len(names)} classes separated by commas: {names}; "
            "for a name that holds a comma use a class file"
        )
    kept = [argument for argument in arguments if "," in argument]
    remark = f"kept as one class each: {kept}; separate class names by spaces" if kept else None
    return arguments, remark
