"""MaskFormer with a closed vocabulary, and what OVSeg shares with it.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_backbone,
    build_sem_seg_head,
)
from ovseg.modeling.criterion import SetCriterion
from ovseg.modeling.matcher import HungarianMatcher
from ovseg.modeling.prediction import MaskPrediction
from ovseg.modeling.segmentor import ImageBatch, Inputs, Segmentor
from ovseg.vocab import Vocabulary


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


def masks_from_logits(
    logits: Tensor, *, padded_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Brings the head's masks of one image to the network's input size.

    Args:
        logits: (Q, h / 4, w / 4) of the padded image.
        padded_size: (height, width) of the padded batch.
        size: (h, w) of the image without padding.

    Returns:
        (Q, h, w) float32 in [0, 1].
    """
    resized = F.interpolate(
        logits[None].float(), size=padded_size, mode="bilinear", align_corners=False
    )
    return resized[0, :, : size[0], : size[1]].sigmoid()


@META_ARCH_REGISTRY.register()
class MaskFormer(Segmentor):
    """Segmentation by classifying masks, with the classes it was trained on.

    Args:
        backbone: images to features.
        sem_seg_head: features to class logits and masks per query.
        criterion: the training losses.
        mask_threshold: a mask with a pixel above this value counts as valid.
        ignored_as_negative: whether ignored pixels and padding count as negatives of every mask, as
            upstream has it, or as nothing.
        base: arguments of `Segmentor`.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        criterion: SetCriterion,
        mask_threshold: float,
        ignored_as_negative: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.mask_threshold = mask_threshold
        self.ignored_as_negative = ignored_as_negative

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL, TEST.OUTPUT and the prompt templates."""
        former, adapter = cfg.MODEL.MASK_FORMER, cfg.MODEL.CLIP_ADAPTER
        backbone = build_backbone(cfg)
        divisibility = former.SIZE_DIVISIBILITY
        criterion = SetCriterion(
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            matcher=HungarianMatcher(
                cost_class=1.0, cost_mask=former.MASK_WEIGHT, cost_dice=former.DICE_WEIGHT
            ),
            no_object_weight=former.NO_OBJECT_WEIGHT,
            mask_weight=former.MASK_WEIGHT,
            dice_weight=former.DICE_WEIGHT,
        )
        predefined = adapter.TEXT_TEMPLATES == "predefined"
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "criterion": criterion,
            "mask_threshold": adapter.MASK_THR,
            "ignored_as_negative": former.IGNORED_AS_NEGATIVE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": (
                divisibility if divisibility >= 0 else backbone.size_divisibility
            ),
            "templates": (
                tuple(adapter.PREDEFINED_PROMPT_TEMPLATES) if predefined else adapter.TEXT_TEMPLATES
            ),
            "output": cfg.TEST.OUTPUT,
            "synonyms": adapter.SYNONYMS,
        }

    def class_logits(self, outputs: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
        """Turns the head's class outputs into logits; here they are logits already.

        Args:
            outputs: of the head; pred_logits (B, Q, D).
            vocabulary: K classes.

        Returns:
            `outputs` with pred_logits (B, Q, K + 1), also in aux_outputs.
        """
        classes = outputs["pred_logits"].shape[-1] - 1
        if len(vocabulary) != classes:
            raise ValueError(
                f"Expected the {classes} classes of training, got a vocabulary of "
                f"{len(vocabulary)}; MaskFormer is closed, OVSeg takes any vocabulary."
            )
        return outputs

    def losses(
        self, batch: ImageBatch, batched_inputs: Inputs, vocabulary: Vocabulary
    ) -> dict[str, Tensor]:
        """Computes the losses of every decoder layer; see `Segmentor.losses`."""
        if len(vocabulary) != self.criterion.num_classes:
            raise ValueError(
                f"Expected {self.criterion.num_classes} training classes, got a vocabulary of "
                f"{len(vocabulary)}; set MODEL.SEM_SEG_HEAD.NUM_CLASSES to {len(vocabulary)}."
            )
        images = batch.padded.tensor
        outputs = self.class_logits(self.sem_seg_head(self.backbone(images)), vocabulary)
        size = (images.shape[-2], images.shape[-1])
        targets = instance_targets(
            batched_inputs, size, self.device, leave_out_ignored=not self.ignored_as_negative
        )
        return self.criterion(outputs, targets)

    def micro_batch_weights(self, micro_batches: Sequence[Inputs]) -> list[dict[str, float]]:
        """Weights that make the losses of parts of a batch add up to those of the whole batch.

        Args:
            micro_batches: the parts, with instances.

        Returns:
            Per part a factor by name of a loss; `loss_ce` stands for `loss_ce_0` and so on, too.
        """
        queries = len(self.get_parameter("sem_seg_head.predictor.query_embed.weight"))
        counts = [[len(x["instances"]) for x in part] for part in micro_batches]
        each = [self.criterion.divisors(part, queries) for part in counts]
        sums = {name: sum(part[name] for part in each) for name in each[0]}
        return [
            {
                "loss_ce": part["loss_ce"] / (sums["loss_ce"] or 1.0),
                **{
                    name: max(part[name], 1.0) / max(sums[name], 1.0)
                    for name in ("loss_mask", "loss_dice")
                },
            }
            for part in each
        ]

    def predict(self, batch: ImageBatch, vocabulary: Vocabulary) -> Iterator[MaskPrediction]:
        """Predicts the masks of one image after the other; see `Segmentor.predict`."""
        images = batch.padded.tensor
        outputs = self.class_logits(self.sem_seg_head(self.backbone(images)), vocabulary)
        for index, (image, output_size) in enumerate(
            zip(batch.images, batch.output_sizes, strict=True)
        ):
            masks = masks_from_logits(  # (Q, h, w)
                outputs["pred_masks"][index],
                padded_size=(images.shape[-2], images.shape[-1]),
                size=(image.shape[1], image.shape[2]),
            )
            # no-object takes part in the softmax and is dropped from the result.
            proposal = outputs["pred_logits"][index].float().softmax(-1)[:, :-1]  # (Q, K)
            yield self.score(image, masks, proposal, vocabulary, output_size)

    def score(
        self,
        image: Tensor,
        masks: Tensor,
        proposal: Tensor,
        vocabulary: Vocabulary,
        output_size: tuple[int, int],
    ) -> MaskPrediction:
        """Gives the masks of one image their final class scores.

        Args:
            image: (3, h, w) RGB 0-255.
            masks: (Q, h, w) in [0, 1].
            proposal: (Q, K) class probabilities of the head.
            vocabulary: K classes.
            output_size: requested (H, W).

        Returns:
            The prediction.
        """
        return MaskPrediction(
            masks=masks,
            class_scores=proposal,
            proposal_scores=proposal,
            clip_scores=None,
            valid=masks.amax((1, 2)) > self.mask_threshold,
            output_size=output_size,
        )

    def predict_masks(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> list[MaskPrediction]:
        """Predicts masks and their scores, before merging.

        Args:
            batched_inputs: see `Segmentor.forward`.
            vocabulary: K classes; None reads them from the inputs.

        Returns:
            One prediction per image.
        """
        if vocabulary is None:
            vocabulary = self.find_vocabulary(batched_inputs)
        with torch.no_grad():
            return list(self.predict(self.prepare(batched_inputs), vocabulary))
