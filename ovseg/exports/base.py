"""What every export does: it takes results one by one and leaves a folder for one tool."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ovseg.regions import Region
from ovseg.utils.files import write_json
from ovseg.utils.images import write_png
from ovseg.utils.pictures import is_address

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation

MARKER = ".ovseg_export"  # no .json, which tools would take for one of theirs


@dataclass(frozen=True)
class Picture:
    """The picture that a result belongs to.

    Attributes:
        stem: name of the files that are written for it, without suffix.
        file: the picture's file.
        height: in pixels, upright.
        width: in pixels, upright.
    """

    stem: str
    file: Path
    height: int
    width: int


class Exporter(ABC):
    """Takes results of one vocabulary and writes them for one tool.

    Class numbers are those of the label maps. The background class is listed with the others, so
    that numbers agree, and has no annotations.

    Args:
        folder: where the files go; made if missing.
        names: K class names, in the order of the results' labels.
        tolerance: vertices of polygons are left out as long as an outline moves by at most so many
            pixels; 0 keeps outlines exactly. Formats that hold masks ignore it.

    Raises:
        FileExistsError: the folder holds something else than an earlier export of these classes.
    """

    name: ClassVar[str]

    def __init__(
        self, folder: str | os.PathLike[str], names: Sequence[str], *, tolerance: float = 0.0
    ) -> None:
        self.folder = Path(folder)
        self.names = tuple(names)
        self.tolerance = tolerance
        self._claim()

    def add(
        self, result: Segmentation, *, stem: str, source: str | os.PathLike[str] | None = None
    ) -> None:
        """Take one result.

        Args:
            result: of the classes of this export.
            stem: name of the files of this picture, without suffix; another one for each picture.
            source: the picture's file. Without one, and of a picture from an address, the picture
                is written to `images/` in the folder.

        Raises:
            ValueError: the result has other classes.
        """
        if tuple(result.names) != self.names:
            raise ValueError(
                f"names: expected a result of the classes {list(self.names)}, got one of "
                f"{list(result.names)}; export each vocabulary to a folder of its own"
            )
        height, width = result.labels.shape
        if source is None or is_address(source) or not Path(source).is_file():
            file = self.folder / "images" / f"{stem}.png"
            write_png(file, result.image)
        else:
            file = Path(source)
        regions = [region for region in result if region.label != result.background]
        self._take(Picture(stem, file, height, width), regions, result)

    @abstractmethod
    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        """Write or keep what one picture has."""

    @abstractmethod
    def finish(self) -> list[Path]:
        """Write what belongs to all pictures together.

        Returns:
            The files of the export that a tool is to be given.
        """

    def _claim(self) -> None:
        marker = self.folder / MARKER
        claim = {"format": self.name, "names": list(self.names)}
        if marker.is_file():
            if marker.read_text(encoding="utf-8") != _as_text(claim):
                raise FileExistsError(
                    f"{self.folder}: expected an export of these classes to {self.name}, found "
                    "one of others; choose another folder or delete this one"
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise FileExistsError(
                f"{self.folder}: expected a folder that is empty or holds an earlier export to "
                f"{self.name}, found other files; choose another folder"
            )
        write_json(marker, claim, indent=None)


def relative_names(pictures: Sequence[Picture]) -> list[str]:
    """Name picture files below the folder that they have in common, with forward slashes."""
    if not pictures:
        return []
    files = [picture.file.absolute() for picture in pictures]
    try:
        common = Path(os.path.commonpath([file.parent for file in files]))
    except ValueError:  # on several drives of Windows
        return [file.as_posix() for file in files]
    return [file.relative_to(common).as_posix() for file in files]


def _as_text(claim: Mapping[str, object]) -> str:
    return json.dumps(claim, separators=(",", ":")) + "\n"
