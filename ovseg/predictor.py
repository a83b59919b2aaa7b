"""From a picture and class names to a segmentation: the package's front door.

>>> import ovseg
>>> result = ovseg.load("ovseg_tiny").segment("photo.jpg", ["sky", "tree"])
>>> result.save("out")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

import ovseg
from ovseg import d2
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.modeling.segmentor import Encoding, SegmentationModel, Segmentor
from ovseg.modeling.views import build_views
from ovseg.segmentation import Segmentation
from ovseg.utils.images import pil_to_rgb, read_image
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.utils.specks import merge_specks
from ovseg.visualization import BLANK
from ovseg.vocab import Vocabulary
from ovseg.weights.find import RANDOM, find_weights, named_weights, trained_weights
from ovseg.weights.record import config_for, load_named

if TYPE_CHECKING:
    from ovseg.d2.config import CfgNode

ImageLike = str | Path | Image.Image | np.ndarray


def load(
    name_or_path: str | Path | None = None,
    *,
    config: str | Path | None = None,
    device: str | None = None,
    opts: Sequence[str] = (),
) -> Predictor:
    """Load a model that is ready to segment pictures.

    Args:
        name_or_path: name in ``ovseg.weights.catalogue.entries()``, path or address of a
            checkpoint; "random" for a model with random weights, to try out a
            configuration; None for ``MODEL.WEIGHTS`` of ``opts``, else for the trained weights
            of the config, and without a config for the bundled "ovseg_tiny".
        config: config file or shipped name such as "ovseg_swinB"; by default the one that the
            catalogue gives for the weights, or ``config.yaml`` beside their file.
        device: "cpu", "cuda", "cuda:1"; by default the GPU if there is one.
        opts: config overrides, ``["KEY", "VALUE", ...]``.

    Returns:
        The predictor, in evaluation mode.

    Raises:
        ValueError: no config belongs to the weights, two are named, or the device does not exist.
        ovseg.weights.load.WeightsError: the checkpoint does not fit the model.
    """
    wanted, named = name_or_path, named_weights(opts)
    if wanted is not None and named not in (None, str(wanted)):
        raise ValueError(
            f"weights: expected one model, got {str(wanted)!r} and MODEL.WEIGHTS {named!r}; "
            "give one of them"
        )
    wanted = named if wanted is None else wanted
    config = config_for(wanted) if config is None else config
    cfg = load_cfg(config, ["MODEL.DEVICE", _pick_device(device), *opts])
    wanted = str(wanted) if wanted is not None else trained_weights(cfg)
    # Before the model is built, which takes a while: they may have to be fetched, or not be there.
    path = None if wanted in ("", RANDOM) else find_weights(wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # "random" weights, too, are the same every time
        model = build_model(cfg)
    if not isinstance(model, SegmentationModel):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE: expected a SegmentationModel, got {type(model).__name__}"
        )
    weights = load_named(model, wanted, path=path)
    return Predictor.from_config(cfg, model, provenance=_provenance(config, cfg, weights))


class Predictor:
    """Segments pictures with one model; the vocabulary is given with each picture.

    Args:
        model: any segmentor.
        short_side: the picture's shorter side is scaled to this many pixels for the network.
        max_side: unless its longer side would then exceed this.
        templates: prompt templates for plain class names: a known list's name, or the strings.
        synonyms: what stands for a class of a benchmark, see `Vocabulary.from_classes`.
        provenance: facts to be kept with each result.
    """

    def __init__(
        self,
        *,
        model: Segmentor,
        short_side: int,
        max_side: int,
        templates: str | Sequence[str] = "vild",
        synonyms: str = "list",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model.eval()
        self.short_side = short_side
        self.max_side = max_side
        self.templates = templates
        self.synonyms = synonyms
        self.provenance = dict(provenance or {})

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: SegmentationModel,
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Wrap a built model as its config says, in the views of `cfg.TEST`, too.

        Args:
            cfg: the config that the model was built from.
            model: the model, with its weights.
            provenance: facts to be kept with each result.

        Returns:
            The predictor.
        """
        return cls(
            model=build_views(cfg, model),
            short_side=cfg.INPUT.MIN_SIZE_TEST,
            max_side=cfg.INPUT.MAX_SIZE_TEST,
            templates=model.templates,
            synonyms=model.synonyms,
            provenance=provenance,
        )

    def vocabulary(
        self, names: Sequence[str] | Vocabulary, *, background: str | None = None
    ) -> Vocabulary:
        """Turn class names into the vocabulary that the model is asked for.

        Args:
            names: class names, each put into the templates as it stands; or a vocabulary, which
                is returned unchanged.
            background: a further class for everything else, such as "others".

        Returns:
            The vocabulary.

        Raises:
            ValueError: no name, an empty one, one given twice, or a background for a vocabulary
                that is already made.
        """
        if isinstance(names, Vocabulary):
            if background is not None:
                raise ValueError(
                    "background: a Vocabulary carries its own; "
                    "give it to Vocabulary.make(..., background=...) instead"
                )
            return names
        return Vocabulary.make(names, templates=self.templates, background=background)

    def benchmark(self, name: str, *, background: str | None = None) -> Vocabulary:
        """Make a benchmark's vocabulary with this model's templates.

        Args:
            name: such as "ade20k_150" (``ovseg.vocab.class_list_names()``).
            background: a further class for everything else, where the benchmark has none.

        Returns:
            The vocabulary, in the order of the benchmark's label ids.

        Raises:
            ValueError: an unknown benchmark.
        """
        made = Vocabulary.benchmark(name, templates=self.templates, synonyms=self.synonyms)
        if background is None or made.background is not None:
            return made
        names, prompts = made.names, made.prompts
        if background not in names:
            names, prompts = (*names, background), (*prompts, (background,))
        return replace(made, names=names, prompts=prompts, background=names.index(background))

    def set_image(self, image: ImageLike) -> EncodedPicture:
        """Do for a picture all that does not depend on words; ask it then any words.

        Args:
            image: a file, a PIL image, or an (H, W, 3) uint8 RGB array.

        Returns:
            The picture; its `segment` answers in the time of decoding. It holds what the model
            found, some hundred megabytes for a full-size one, until it is dropped.

        Raises:
            ValueError: unusable image array.
            OSError: the file cannot be read.
        """
        picture = self._encode(image)
        with torch.no_grad():
            self.model.prefetch(picture.encoding)
        return picture

    def segment(
        self,
        image: ImageLike,
        names: Sequence[str] | Vocabulary,
        *,
        background: str | None = None,
        proposals: bool = False,
        min_region_area: int = 0,
    ) -> Segmentation:
        """Cut a picture into the regions of the classes named.

        Args:
            image: a file, a PIL image, or an (H, W, 3) uint8 RGB array.
            names: class names, or a vocabulary.
            background: a further class for everything else, such as "others". Without it, and in
                the semantic inference mode, every pixel goes to one of ``names``.
            proposals: also list the model's masks, where it has any.
            min_region_area: parts with fewer pixels join what surrounds them. Not in evaluation.

        Returns:
            The segmentation, at the picture's own size.

        Raises:
            ValueError: unusable image array or names, or a negative area.
            OSError: the file cannot be read.
        """
        vocabulary = self.vocabulary(names, background=background)  # a wrong one fails at once
        return self._encode(image).segment(
            vocabulary, proposals=proposals, min_region_area=min_region_area
        )

    @torch.no_grad()
    def _encode(self, image: ImageLike) -> EncodedPicture:
        picture = to_rgb(image)  # (H, W, 3)
        small = resize_shortest_edge(picture, self.short_side, self.max_side)  # (h, w, 3)
        inputs: dict[str, Any] = {
            "image": torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))),  # (3, h, w)
            "height": picture.shape[0],
            "width": picture.shape[1],
            "original": picture,
        }
        file = {}
        if isinstance(image, str | Path):
            file, inputs["image_id"] = {"image": str(image)}, Path(image).stem
        [encoding] = self.model.encode([inputs])
        return EncodedPicture(self, picture, encoding, file)

    def describe(self) -> str:
        """Say in plain text which weights and which software this is.

        Returns:
            Two lines without a final newline.
        """
        facts, weights = self.provenance, self.provenance["weights"]
        known = [weights["name"], weights["path"]]
        known += [f"sha256 {weights['sha256'][:12]}"] if weights["sha256"] else []
        known += [f"licence: {weights['licence']}"]
        return (
            f"weights: {'  '.join(part for part in known if part)}\n"
            f"model:   {facts['config']} on {facts['device']}, "
            f"detectron2 backend: {facts['backend']}"
        )


class EncodedPicture:
    """A picture that is ready to be asked for words; made by `Predictor.set_image`.

    Args:
        predictor: whose model encoded it.
        image: (H, W, 3) uint8 RGB.
        encoding: what the model found.
        file: the picture's file as provenance, where it has one.
    """

    def __init__(
        self,
        predictor: Predictor,
        image: np.ndarray,
        encoding: Encoding,
        file: Mapping[str, Any],
    ) -> None:
        self.predictor = predictor
        self.image = image
        self.encoding = encoding
        self._file = file

    @torch.no_grad()
    def segment(
        self,
        names: Sequence[str] | Vocabulary,
        *,
        background: str | None = None,
        proposals: bool = False,
        min_region_area: int = 0,
    ) -> Segmentation:
        """Cut the picture into the regions of the classes named; see `Predictor.segment`.

        Args:
            names: class names, or a vocabulary.
            background: a further class for everything else.
            proposals: also list the model's masks, where it has any.
            min_region_area: parts with fewer pixels join what surrounds them.

        Returns:
            The segmentation, at the picture's own size.

        Raises:
            ValueError: unusable names, or a negative area.
        """
        vocabulary = self.predictor.vocabulary(names, background=background)
        prediction = self.predictor.model.decode(self.encoding, vocabulary)
        named = prediction.labels(blank=BLANK).to("cpu", torch.int32)  # (H, W)
        labels = merge_specks(named.numpy(), min_region_area)
        return Segmentation(
            image=self.image,
            labels=labels,
            names=vocabulary.names,
            scores=prediction.region_scores(labels),
            proposals=prediction.proposals() if proposals else None,
            background=vocabulary.background,
            provenance={
                **self._file,
                **self.predictor.provenance,
                "templates": len(vocabulary.templates),
                "min_region_area": min_region_area,
            },
        )


def to_rgb(image: ImageLike) -> np.ndarray:
    """Read or check a picture.

    Args:
        image: a file, a PIL image, or an (H, W, 3) uint8 RGB array.

    Returns:
        (H, W, 3) uint8 RGB, upright.

    Raises:
        ValueError: an array of another shape or type, or an empty one.
        OSError: the file cannot be read.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return pil_to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"image: expected a path, a PIL image or an (H, W, 3) uint8 RGB array, "
            f"got {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"image: expected an (H, W, 3) uint8 RGB array, got {image.shape} {image.dtype}; "
            "scale floats to 0-255, or pass PIL.Image.fromarray(...) for grey and RGBA arrays"
        )
    return image


# -- loading ---------------------------------------------------------------------------------


def _pick_device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {device!r} was asked for, but torch sees no GPU; use 'cpu'")
    return device


def _provenance(config: str | Path, cfg: CfgNode, weights: Mapping[str, str]) -> dict[str, Any]:
    return {
        "weights": dict(weights),
        "config": str(config),
        "device": cfg.MODEL.DEVICE,
        "backend": d2.backend(),
        "ovseg": ovseg.__version__,
        "torch": torch.__version__,
    }
