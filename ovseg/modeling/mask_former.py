"""MaskFormer with a closed vocabulary, and what OVSeg shares with it.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from ovseg.modeling import backbone as _backbones  # noqa: F401  # registers them
from ovseg.modeling.criterion import SetCriterion
from ovseg.modeling.encoding import MaskEncoding
from ovseg.modeling.ensemble import check_mask_threshold
from ovseg.modeling.heads import MaskHead, build_mask_head, is_closed
from ovseg.modeling.matcher import HungarianMatcher
from ovseg.modeling.point_criterion import PointCriterion
from ovseg.modeling.prediction import MaskPrediction
from ovseg.modeling.region_classifier import LOGIT_SCALE
from ovseg.modeling.segmentor import Encoding, Inputs, SegmentationModel
from ovseg.vocab import Vocabulary
from ovseg.weights.ovseg import load_ovseg_weights


def instance_targets(
    batched_inputs: Inputs,
    size: tuple[int, int],
    device: torch.device,
    *,
    leave_out_ignored: bool = False,
) -> list[dict[str, Tensor]]:
    """Ground truth of a batch, masks zero-padded to the batch's size.

    Args:
        batched_inputs: each with instances: gt_classes (N,) and gt_masks (N, H, W); where ignored
            pixels are left out also ignored (H, W) bool.
        size: (height, width) of the padded batch.
        device: where the targets go.
        leave_out_ignored: whether ignored pixels and padding are named in the targets.

    Returns:
        Per image labels (N,) int64 and masks (N, height, width) bool, and where asked for ignored
        (height, width) bool.
    """
    targets = []
    for x in batched_inputs:
        instances = x["instances"]
        masks = getattr(instances.gt_masks, "tensor", instances.gt_masks).to(device)
        padding = (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1])
        targets.append({"labels": instances.gt_classes.to(device), "masks": F.pad(masks, padding)})
        if leave_out_ignored:
            targets[-1]["ignored"] = F.pad(x["ignored"].to(device), padding, value=True)
    return targets


def build_criterion(cfg: CfgNode) -> SetCriterion | PointCriterion:
    """Builds the losses of the queries that MODEL.MASK_FORMER.QUERIES names.

    Args:
        cfg: full configuration.

    Returns:
        The criterion.
    """
    former, classes = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if former.QUERIES == "points":
        return PointCriterion(
            num_classes=classes,
            points=former.POINTS.PER_IMAGE,
            mask_weight=former.MASK_WEIGHT,
            dice_weight=former.DICE_WEIGHT,
            quality_weight=former.POINTS.QUALITY_WEIGHT,
            class_weight=former.POINTS.CLASS_WEIGHT,
            alignment_weight=former.POINTS.ALIGNMENT_WEIGHT,
            logit_scale=None if is_closed(cfg) else LOGIT_SCALE,
        )
    return SetCriterion(
        num_classes=classes,
        matcher=HungarianMatcher(
            cost_class=1.0, cost_mask=former.MASK_WEIGHT, cost_dice=former.DICE_WEIGHT
        ),
        no_object_weight=former.NO_OBJECT_WEIGHT,
        mask_weight=former.MASK_WEIGHT,
        dice_weight=former.DICE_WEIGHT,
    )


@META_ARCH_REGISTRY.register()
class MaskFormer(SegmentationModel):
    """Segmentation by classifying masks, with the classes it was trained on.

    Args:
        backbone: images to features.
        sem_seg_head: features to masks and their class outputs; its queries are learned or made
            from the features of pixels.
        criterion: the training losses of such queries.
        mask_threshold: a mask with a pixel above this value counts as valid.
        ignored_as_negative: whether ignored pixels and padding count as negatives of every mask, as
            upstream has it, or as nothing.
        base: arguments of `SegmentationModel`.
    """

    sem_seg_head: MaskHead
    criterion: SetCriterion | PointCriterion

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: MaskHead,
        criterion: SetCriterion | PointCriterion,
        mask_threshold: float,
        ignored_as_negative: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.mask_threshold = check_mask_threshold(mask_threshold)
        self.ignored_as_negative = ignored_as_negative

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL, TEST.OUTPUT and the prompt templates."""
        former = cfg.MODEL.MASK_FORMER
        backbone = build_backbone(cfg)
        divisibility = former.SIZE_DIVISIBILITY
        return super().from_config(cfg) | {
            "backbone": backbone,
            "sem_seg_head": build_mask_head(cfg, backbone.output_shape()),
            "criterion": build_criterion(cfg),
            "mask_threshold": cfg.MODEL.CLIP_ADAPTER.MASK_THR,
            "ignored_as_negative": former.IGNORED_AS_NEGATIVE,
            "size_divisibility": (
                divisibility if divisibility >= 0 else backbone.size_divisibility
            ),
        }

    def load_weights(
        self,
        state_or_path: Mapping[str, Tensor] | str | Path,
        *,
        to_train: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        """Loads a checkpoint, or to train a backbone; see `SegmentationModel.load_weights`."""
        load_ovseg_weights(
            self, state_or_path, allow_backbone_only=to_train, allow_pickle=allow_pickle
        )

    def propose(self, images: Tensor) -> dict[str, Any]:
        """Runs the network.

        Args:
            images: (B, 3, h, w) normalised and padded.

        Returns:
            What the head gives. Of learned queries: pred_masks (B, Q, h / 4, w / 4), pred_logits
            (B, Q, D), and aux_outputs with the same of the earlier decoder layers; of points see
            `PointQueryHead.forward`.
        """
        return self.sem_seg_head(self.backbone(images))

    def class_logits(self, embeddings: Sequence[Tensor], vocabulary: Vocabulary) -> list[Tensor]:
        """Turns the head's class embeddings into logits; here they are logits already.

        Args:
            embeddings: each (..., D).
            vocabulary: K classes.

        Returns:
            Each (..., K + 1), the last column for "no object".
        """
        classes = embeddings[0].shape[-1] - 1
        if len(vocabulary) != classes:
            raise ValueError(
                f"Expected the {classes} classes of training, got a vocabulary of "
                f"{len(vocabulary)}; MaskFormer is closed, OVSeg takes any vocabulary."
            )
        return list(embeddings)

    def losses(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> dict[str, Tensor]:
        """Computes the losses of every decoder layer; see `Segmentor.losses`."""
        vocabulary = vocabulary or self.find_vocabulary(batched_inputs)
        if len(vocabulary) != self.criterion.num_classes:
            raise ValueError(
                f"Expected {self.criterion.num_classes} training classes, got a vocabulary of "
                f"{len(vocabulary)}; set MODEL.SEM_SEG_HEAD.NUM_CLASSES to {len(vocabulary)}."
            )
        images = self.prepare(batched_inputs).padded.tensor
        outputs = self.propose(images)
        layers = [outputs, *outputs.get("aux_outputs", ())]
        logits = self.class_logits([layer["pred_logits"] for layer in layers], vocabulary)
        layers = [layer | {"pred_logits": own} for layer, own in zip(layers, logits, strict=True)]
        size = (images.shape[-2], images.shape[-1])
        targets = instance_targets(
            batched_inputs, size, self.device, leave_out_ignored=not self.ignored_as_negative
        )
        return self.criterion(layers[0] | {"aux_outputs": layers[1:]}, targets)

    def micro_batch_weights(self, micro_batches: Sequence[Inputs]) -> list[dict[str, float]]:
        """Weights that make the losses of parts of a batch add up to those of the whole batch.

        Args:
            micro_batches: the parts, with instances.

        Returns:
            Per part a factor by name of a loss; `loss_ce` stands for `loss_ce_0` and so on, too.
        """
        counts = [[len(x["instances"]) for x in part] for part in micro_batches]
        return self.criterion.micro_batch_weights(counts, self.sem_seg_head.num_queries)

    def encode(self, batched_inputs: Inputs) -> Iterator[MaskEncoding]:
        """Finds the masks of each image; see `Segmentor.encode`."""
        batch = self.prepare(batched_inputs)
        images = batch.padded.tensor
        outputs = self.propose(images)
        for index, (image, output_size) in enumerate(
            zip(batch.images, batch.output_sizes, strict=True)
        ):
            size, padded = (image.shape[1], image.shape[2]), (images.shape[-2], images.shape[-1])
            covered = (size[0] / padded[0], size[1] / padded[1])
            masks, embeddings, quality = self.sem_seg_head.proposals(outputs, index, covered)
            yield MaskEncoding(
                mask_logits=masks.float(),
                class_embeddings=embeddings.float(),
                quality=quality,
                size=size,
                padded_size=padded,
                output_size=output_size,
                image=image,
            )

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> MaskPrediction:
        """Classifies the masks; see `Segmentor.decode`."""
        assert isinstance(encoding, MaskEncoding)
        [logits] = self.class_logits([encoding.class_embeddings], vocabulary)
        # "No object" takes part in the softmax, where it was learned, and is dropped afterwards.
        told_apart = logits if self.sem_seg_head.learns_no_object else logits[:, :-1]
        proposal_scores = told_apart.softmax(-1)[:, : len(vocabulary)]  # (Q, K)
        return MaskPrediction(
            masks=encoding.masks,
            class_scores=encoding.weigh(proposal_scores),
            proposal_scores=proposal_scores,
            clip_scores=None,
            valid=encoding.peaks > self.mask_threshold,
            output_size=encoding.output_size,
            mask_threshold=self.mask_threshold,
        )

    def prefetch(self, encoding: Encoding) -> None:
        """Computes the masks; see `Segmentor.prefetch`."""
        assert isinstance(encoding, MaskEncoding)
        _ = encoding.masks
