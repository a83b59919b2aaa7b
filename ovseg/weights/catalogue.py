"""The catalogue of released weights, and from a name, a path or an address to a local file."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlparse

from ovseg.utils.files import atomic_path, sha256_of
from ovseg.weights.download import DownloadError, download, verify
from ovseg.weights.drive import download_from_drive, drive_id, drive_page

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "OVSEG_CACHE"
KEEP_TEXTS_VARIABLE = "OVSEG_KEEP_TEXTS"
# Each with a config of its name.
BUNDLED = ("ovseg_tiny", "pacl_tiny", "segclip_tiny", "pnp_ovss_tiny")
CHECKSUMS = "SHA256SUMS"  # of the bundled files, beside them, as sha256sum writes it
DETECTRON2_SCHEME = "detectron2://"
DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"

_MD5_DIGITS = 32
_PLAIN_NAME = re.compile(r"\w[\w.+ -]{0,120}", re.ASCII)
_OPENAI_URL = "https://openaipublic.azureedge.net/clip/models"
_SWIN_URL = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
_OVSEG_NOTE = "on the authors' Google Drive; of its md5 only the first digits are known here"


class HubError(ValueError):
    """Weights that are not known, or that the installation lacks."""


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One released weight file.

    Args:
        name: what to ask for.
        filename: the file's name at its source, and in the cache.
        licence: as its authors state it.
        url: where to get it, or None if it lies on Google Drive or is bundled.
        drive_id: its id on Google Drive, or None.
        sha256: of the file, or None if it is not known.
        md5: of the file, or its first digits, or None.
        size: in bytes, or None if it is not known.
        config: the configuration to build the model with, for whole models.
        bundled_path: the file inside the package, for bundled weights.
        note: what a user has to know.
    """

    name: str
    filename: str
    licence: str
    url: str | None = None
    drive_id: str | None = None
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    config: str | None = None
    bundled_path: Path | None = None
    note: str = ""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence excludes commercial use."""
        return "NC" in self.licence


def entries() -> dict[str, WeightsEntry]:
    """Return the known weights by name, in a fixed order."""
    return {
        entry.name: entry
        for entry in (*map(_bundled, BUNDLED), *_ovseg(), *_clips(), *_backbones())
    }


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of downloaded weights: the argument, $OVSEG_CACHE or ~/.cache/ovseg."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "ovseg"
    return Path(chosen).expanduser()


def text_cache() -> Path | None:
    """Return the file of kept text features; None where $OVSEG_KEEP_TEXTS is 0."""
    kept = os.environ.get(KEEP_TEXTS_VARIABLE) != "0"
    return cache_folder() / "texts.sqlite" if kept else None


def resolve(
    name_or_path_or_url: str | Path,
    *,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Get the local file of some weights, downloading it at most once.

    Args:
        name_or_path_or_url: a name of the catalogue (or the name of its file), the path of a file,
            or an address (http, https, a file's on Google Drive, or Detectron2's "detectron2://").
        cache_dir: where downloads are kept; see `cache_folder`.
        progress: show a progress bar.

    Returns:
        The path of a complete file, whose checksum was compared where one is known.

    Raises:
        HubError: if the name is not known.
        DownloadError: if a download fails or a checksum differs.
    """
    wanted = os.fspath(name_or_path_or_url)
    known = entries()
    entry = known.get(wanted)
    if entry is None and _is_file(wanted):
        return Path(wanted)
    if entry is None:
        entry = next((e for e in known.values() if e.filename == wanted), None)
    folder = cache_folder(cache_dir)
    if entry is not None:
        return _resolve_entry(entry, folder, progress=progress)
    if wanted.startswith(DETECTRON2_SCHEME):
        wanted = DETECTRON2_URL + wanted.removeprefix(DETECTRON2_SCHEME)
    if wanted.startswith(("http://", "https://")):
        return _resolve_url(wanted, folder, progress=progress)
    close = difflib.get_close_matches(wanted, known, n=1)
    raise HubError(
        f"expected a file, an address or a name of the catalogue, got {wanted!r}"
        + (f"; did you mean {close[0]!r}? Names: " if close else "; names: ")
        + ", ".join(known)
    )


def record_checksums() -> None:
    """Write the checksums of the bundled files anew, after one of them was replaced."""
    folder = Path(str(resources.files("ovseg").joinpath("assets")))
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(folder.glob("*.safetensors"))]
    with atomic_path(folder / CHECKSUMS) as partial:
        partial.write_text("".join(lines), encoding="ascii")


def _is_file(wanted: str) -> bool:
    try:
        return Path(wanted).is_file()
    except (OSError, ValueError):  # longer than any path, or with a zero
        return False


def is_backbone(wanted: str) -> bool:
    """Tell whether a name, file name or address is a released backbone's: no whole model's."""
    if wanted.startswith(DETECTRON2_SCHEME):
        wanted = DETECTRON2_URL + wanted.removeprefix(DETECTRON2_SCHEME)
    return any(wanted in (each.name, each.filename, each.url) for each in _backbones())


def _resolve_entry(entry: WeightsEntry, folder: Path, *, progress: bool) -> Path:
    if entry.non_commercial:
        logger.warning("%s: licence %s, not for commercial use", entry.name, entry.licence)
    else:
        logger.info("%s: licence %s", entry.name, entry.licence)
    if entry.bundled_path is not None:
        if not entry.bundled_path.is_file():
            raise HubError(
                f"expected the bundled weights of {entry.name} at {entry.bundled_path}, but there "
                "is no file; the installation is incomplete"
            )
        try:
            verify(entry.bundled_path, sha256=entry.sha256)
        except DownloadError as error:
            raise HubError(
                f"the bundled weights of {entry.name} are damaged; install ovseg anew. {error}"
            ) from error
        return entry.bundled_path
    target = folder / entry.filename
    _say_what_is_known(entry)
    if target.is_file():
        verify(target, sha256=entry.sha256, md5=entry.md5)  # it may have been put there by hand
    elif entry.drive_id is not None:
        download_from_drive(entry.drive_id, target, md5=entry.md5, progress=progress)
    else:
        assert entry.url is not None, "an entry is bundled, on Google Drive or at an address"
        download(entry.url, target, sha256=entry.sha256, progress=progress)
    return target


def _say_what_is_known(entry: WeightsEntry) -> None:
    if entry.sha256 is None and (entry.md5 is None or len(entry.md5) < _MD5_DIGITS):
        known = f"the first {len(entry.md5)} digits of its md5" if entry.md5 else "no checksum"
        logger.warning(
            "%s: %s known here, so damage shows but not whether somebody made another file on "
            "purpose; compare its sha256, which the log says, with one that you trust"
            if entry.md5
            else "%s: %s is known here, so its content cannot be checked",
            entry.name,
            f"only {known} are" if entry.md5 else known,
        )


def _resolve_url(url: str, folder: Path, *, progress: bool) -> Path:
    file_id = drive_id(url)
    for entry in entries().values():
        if entry.url == url or (file_id is not None and entry.drive_id == file_id):
            return _resolve_entry(entry, folder, progress=progress)
    try:
        filename = Path(unquote(urlparse(url).path)).name
    except ValueError as error:
        raise DownloadError(f"expected an http or https address, got {url[:200]!r}") from error
    if not _PLAIN_NAME.fullmatch(filename):
        filename = "weights"
    if file_id is not None:
        url, filename = drive_page(file_id), "weights"
    target = folder / hashlib.sha256(url.encode()).hexdigest()[:12] / filename
    if not target.is_file():
        logger.warning("%s is not in the catalogue, so its content cannot be checked", url)
        if file_id is not None:
            download_from_drive(file_id, target, progress=progress)
        else:
            download(url, target, progress=progress)
    return target


def _bundled(name: str) -> WeightsEntry:
    filename = f"{name}.safetensors"
    assets = resources.files("ovseg").joinpath("assets")
    listed = assets.joinpath(CHECKSUMS).read_text(encoding="ascii").split()
    return WeightsEntry(
        name=name,
        filename=filename,
        licence="Apache-2.0",
        config=name,
        bundled_path=Path(str(assets.joinpath(filename))),
        sha256=dict(zip(listed[1::2], listed[::2], strict=True)).get(filename),
        note="bundled; trained on tinyscapes, it knows nothing else",
    )


def _ovseg() -> tuple[WeightsEntry, ...]:
    swin, resnet = "ovseg_swinB", "ovseg_R101c"
    swin_file, mpt_file = "ovseg_swinbase_vitL14_ft_mpt.pth", "ovseg_swinbase_vitL14_mpt_only.pt"
    resnet_file = "ovseg_R101c_vitB16_ft_mpt.pth"
    files = (
        (swin, swin_file, "1cn-ohxgXDrDfkzC1QdO-fi8IjbjXmgKy", "526080", swin),
        (resnet, resnet_file, "1ZmeFMEkhuLqaWkhz4t4IlQ8YflrYja8q", "c746f4", resnet),
        ("ovseg_swinB_mpt_only", mpt_file, "1LJGWFjHw76OGDNy9r9KQIaACfIm9KMhQ", "2dd495", swin),
    )
    return tuple(
        WeightsEntry(
            name=name,
            filename=filename,
            licence="CC BY-NC 4.0",
            drive_id=file_id,
            md5=md5,
            config=config,
            note=_OVSEG_NOTE,
        )
        for name, filename, file_id, md5, config in files
    )


def _clips() -> tuple[WeightsEntry, ...]:
    # OpenAI's addresses contain the sha256 of the file.
    files = (
        ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
        ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
        ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
        ("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
    )
    return tuple(
        WeightsEntry(
            name=f"clip_{filename.removesuffix('.pt')}",
            filename=filename,
            licence="MIT",
            url=f"{_OPENAI_URL}/{sha256}/{filename}",
            sha256=sha256,
            note="OpenAI's TorchScript archive, float16",
        )
        for filename, sha256 in files
    )


def _backbones() -> tuple[WeightsEntry, ...]:
    swin = "swin_base_patch4_window12_384_22k.pth"
    return (
        WeightsEntry(
            name="swin_base_patch4_window12_384_22k",
            filename=swin,
            licence="MIT",
            url=f"{_SWIN_URL}/{swin}",
            note="convert with tools/convert_weights.py swin; no checksum is published",
        ),
        WeightsEntry(
            name="R-103",
            filename="R-103.pkl",
            licence="CC BY-SA 3.0",
            url=f"{DETECTRON2_URL}DeepLab/R-103.pkl",
            note="convert with tools/convert_weights.py resnet --allow-pickle; no checksum is "
            "published",
        ),
    )


__all__ = [
    "DownloadError",
    "HubError",
    "WeightsEntry",
    "cache_folder",
    "entries",
    "is_backbone",
    "record_checksums",
    "resolve",
]
