"""From a picture and class names to a segmentation: the package's front door.

>>> import ovseg
>>> result = ovseg.load("ovseg_tiny").segment("photo.jpg", ["sky", "tree"])
>>> result.save("out")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

import ovseg
from ovseg import d2
from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.encoded_picture import EncodedPicture
from ovseg.modeling.segmentor import SegmentationModel, Segmentor
from ovseg.modeling.views import build_views
from ovseg.segmentation import Segmentation
from ovseg.toy_world import toy_world_note
from ovseg.utils.devices import pick_device
from ovseg.utils.memory import bound_primitives
from ovseg.utils.pictures import ImageLike, as_list, picture_name, to_rgb
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.utils.threads import bound_threads
from ovseg.vocab import Names, TextStore, Vocabulary, class_list_names
from ovseg.weights.catalogue import text_cache
from ovseg.weights.find import RANDOM, find_weights, named_weights, trained_weights, weights_set_in
from ovseg.weights.record import config_for, load_named

logger = logging.getLogger(__name__)

_DRAWING = threading.Lock()  # random weights: torch's generator is everybody's


def load(
    name_or_path: str | Path | None = None,
    *,
    config: str | Path | CfgNode | None = None,
    device: str | torch.device | None = None,
    opts: Sequence[str] = (),
) -> Predictor:
    """Load a model that is ready to segment pictures.

    Args:
        name_or_path: name in ``ovseg.weights.catalogue.entries()``, path or address of a
            checkpoint; "random" for a model with random weights, to try out a
            configuration; None for ``MODEL.WEIGHTS`` of ``opts``, else for the trained weights
            of the config, and without a config for the bundled "ovseg_tiny".
        config: config file, shipped name such as "ovseg_swinB", or a full config; by default the
            one that the catalogue gives for the weights, or ``config.yaml`` beside their file.
        device: "cpu", "cuda", "cuda:1", "mps" or a `torch.device`; by default that of a full
            config, else CUDA's GPU if there is one.
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
    by_hand = isinstance(config, CfgNode)
    own = [] if by_hand and device is None else ["MODEL.DEVICE", pick_device(device)]
    cfg = load_cfg(config, [*own, *opts])
    pick_device(cfg.MODEL.DEVICE)  # the overrides may name one, too
    bound_threads()
    bound_primitives()
    if wanted is None:
        wanted = weights_set_in(cfg) if by_hand else trained_weights(cfg)
    wanted = str(wanted)
    # Before the model is built, which takes a while: they may have to be fetched, or not be there.
    path = None if wanted in ("", RANDOM) else find_weights(wanted)
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # "random" weights, too, are the same every time
        model = build_model(cfg)
    if not isinstance(model, SegmentationModel):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE: expected a SegmentationModel, got {type(model).__name__}"
        )
    weights = load_named(model, wanted, path=path)
    if texts := text_cache():
        for bank in model.text_banks():
            bank.keep_in(TextStore(texts))
    return Predictor.from_config(cfg, model, provenance=_provenance(config, cfg, weights))


class Predictor:
    """Segments pictures with one model; the vocabulary is given with each picture.

    Args:
        model: any segmentor.
        short_side: the picture's shorter side is scaled to this many pixels for the network.
        max_side: unless its longer side would then exceed this.
        templates: prompt templates for plain class names: a known list's name, or the strings.
        synonyms: what stands for a class, see `Vocabulary.from_classes`; strings that a call gives
            a class count whatever it says.
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
        self._noted = False

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
        self,
        names: Names | str | Vocabulary,
        *,
        background: str | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> Vocabulary:
        """Turn class names into the vocabulary that the model is asked for.

        Args:
            names: class names, each put into the templates as it stands unless
                `MODEL.CLIP_ADAPTER.SYNONYMS` is a separator; classes with synonyms,
                `{"sky": ["sky", "heaven"]}` or `[["sky", "heaven"]]`; the name of a benchmark, such
                as "ade20k_150"; or a vocabulary, which is returned unchanged.
            background: a further class for everything else, such as "others".
            templates: other prompt templates than the model's: a known list's name, or the strings.

        Returns:
            The vocabulary.

        Raises:
            ValueError: no name, an empty one, one given twice, a string that is no benchmark, or a
                background for a vocabulary that is already made.
            TypeError: names that are no strings, or without an order.
        """
        if isinstance(names, Vocabulary):
            if background is not None:
                raise ValueError(
                    "background: a Vocabulary carries its own; "
                    "give it to Vocabulary.make(..., background=...) instead"
                )
            return names if templates is None else names.with_templates(templates)
        if isinstance(names, str):
            if names not in class_list_names():
                raise ValueError(
                    f"names: expected a list of class names or a benchmark's name, got {names!r}; "
                    f"write [{names!r}] for one class; benchmarks: {', '.join(class_list_names())}"
                )
            return self.benchmark(names, background=background, templates=templates)
        return Vocabulary.make(
            names,
            templates=self.templates if templates is None else templates,
            synonyms=self.synonyms,
            background=background,
        )

    def benchmark(
        self,
        name: str,
        *,
        background: str | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> Vocabulary:
        """Make a benchmark's vocabulary with this model's templates.

        Args:
            name: such as "ade20k_150" (``ovseg.vocab.class_list_names()``).
            background: a further class for everything else, where the benchmark has none.
            templates: other prompt templates than the model's.

        Returns:
            The vocabulary, in the order of the benchmark's label ids.

        Raises:
            ValueError: an unknown benchmark.
        """
        made = Vocabulary.benchmark(
            name,
            templates=self.templates if templates is None else templates,
            synonyms=self.synonyms,
        )
        return made if background is None else made.with_background(background)

    def set_image(self, image: ImageLike, *, image_format: str = "RGB") -> EncodedPicture:
        """Do for a picture all that does not depend on words; ask it then any words.

        Args:
            image: one picture, see `segment`.
            image_format: order of an array's or tensor's channels, "RGB" or "BGR".

        Returns:
            The picture; its `segment` answers in the time of decoding. It holds what the model
            found, some hundred megabytes for a full-size one, until it is dropped.

        Raises:
            ValueError: unusable image array.
            OSError: the file cannot be read.
        """
        picture = self._encode(image, image_format)
        with torch.no_grad():
            self.model.prefetch(picture.encoding)
        return picture

    @overload
    def segment(
        self, image: ImageLike, names: Names | str | Vocabulary, **options: Any
    ) -> Segmentation: ...

    @overload
    def segment(
        self, image: Sequence[ImageLike], names: Names | str | Vocabulary, **options: Any
    ) -> list[Segmentation]: ...

    def segment(  # type: ignore[misc]  # the options are its own keywords
        self,
        image: ImageLike | Sequence[ImageLike],
        names: Names | str | Vocabulary,
        *,
        background: str | None = None,
        templates: str | Sequence[str] | None = None,
        threshold: float = 0.0,
        mask_threshold: float | None = None,
        proposals: bool = False,
        min_region_area: int = 0,
        image_format: str = "RGB",
    ) -> Segmentation | list[Segmentation]:
        """Cut a picture into the regions of the classes named.

        Args:
            image: a file, an address, bytes, a PIL image, an array or a tensor (see
                `ovseg.utils.pictures.to_rgb`); or a list of such, or a batch of four dimensions.
            names: class names, alone or with synonyms, a benchmark's name, or a vocabulary; see
                `vocabulary`.
            background: a further class for everything else, such as "others". Without it, and in
                the semantic inference mode, every pixel goes to one of ``names``.
            templates: other prompt templates than the model's: a known list's name, or the strings.
            threshold: in [0, 1]; a class with a lower score loses its pixels, which are left
                without a class (see `Segmentation.scores`).
            mask_threshold: in [0, 1); another `MODEL.CLIP_ADAPTER.MASK_THR` than the model's: a
                pixel belongs to a mask above this value.
            proposals: also list the model's masks, where it has any.
            min_region_area: parts with fewer pixels join what surrounds them. Not in evaluation.
            image_format: order of an array's or tensor's channels, "RGB" or "BGR" (OpenCV's).

        Returns:
            The segmentation, at the picture's own size; of several pictures a list of them.

        Raises:
            ValueError: unusable image array or names, or a value out of range.
            OSError: the file cannot be read.
        """
        # Wrong names fail at once, before any picture is read.
        vocabulary = self.vocabulary(names, background=background, templates=templates)

        def one(picture: ImageLike) -> Segmentation:
            return self._encode(picture, image_format).segment(
                vocabulary,
                threshold=threshold,
                mask_threshold=mask_threshold,
                proposals=proposals,
                min_region_area=min_region_area,
            )

        several = as_list(image)
        if several is None:
            return one(image)  # type: ignore[arg-type]
        results = []
        for number, picture in enumerate(several, start=1):
            try:
                results.append(one(picture))
            except (OSError, ValueError) as error:
                text = f"picture {number} of {len(several)}: {error}"
                raise (OSError if isinstance(error, OSError) else ValueError)(text) from error
        return results

    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        names: Names | str | Vocabulary,
        **options: Any,
    ) -> list[Any]:
        """Answer as Hugging Face's pipelines for image segmentation do.

        Args:
            image: see `segment`.
            names: see `segment`.
            **options: of `segment`.

        Returns:
            Per class found, largest first, a dict of ``label``, ``score`` and ``mask`` (PIL, "L");
            of several pictures a list of such lists.
        """
        found = self.segment(image, names, **options)
        return [each.to_hf() for each in found] if isinstance(found, list) else found.to_hf()

    @torch.no_grad()
    def _encode(self, image: ImageLike, image_format: str) -> EncodedPicture:
        picture = to_rgb(image, image_format=image_format)  # (H, W, 3)
        self._note_once(picture)
        small = resize_shortest_edge(picture, self.short_side, self.max_side)  # (h, w, 3)
        inputs: dict[str, Any] = {
            "image": torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))),  # (3, h, w)
            "height": picture.shape[0],
            "width": picture.shape[1],
            "original": picture,
        }
        file, name = {}, picture_name(image)
        if name is not None:
            file, inputs["image_id"] = {"image": name}, Path(name).stem
        [encoding] = self.model.encode([inputs])
        return EncodedPicture(self, picture, encoding, file)

    def _note_once(self, picture: np.ndarray) -> None:
        """Say to the user of a bundled model, once, that this picture is not of its world."""
        note = toy_world_note(self.provenance.get("weights", {}).get("name"), picture.shape[:2])
        if note and not self._noted:
            logger.warning("%s", note)
            self._noted = True

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


# -- loading ---------------------------------------------------------------------------------


def _provenance(config: Any, cfg: CfgNode, weights: Mapping[str, str]) -> dict[str, Any]:
    return {
        "weights": dict(weights),
        "config": "given key by key" if isinstance(config, CfgNode) else str(config),
        "device": cfg.MODEL.DEVICE,
        "backend": d2.backend(),
        "ovseg": ovseg.__version__,
        "torch": torch.__version__,
    }
