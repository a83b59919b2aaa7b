"""Patches against words: what CLIP's patch features say of each class, with nothing trained."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, PatchEncoder, encode_texts, load_clip
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling import DensePrediction, Encoding, SegmentationModel, unpad
from ovseg.vocab import TextBank


def add_config(cfg):
    cfg.MODEL.PATCH_TEXT = CfgNode({"STRIDE": 8})  # pixels between two patches


@dataclass(eq=False)
class PatchEncoding(Encoding):
    features: Tensor  # (D, h', w') unit vectors, of the padded image
    padded_size: tuple[int, int]
    size: tuple[int, int]
    output_size: tuple[int, int]

    def tensors(self):
        return {"features": self.features}


@META_ARCH_REGISTRY.register()
class PatchText(SegmentationModel):
    has_own_weights = False

    @configurable
    def __init__(self, *, clip, stride, **base):
        super().__init__(**base, size_divisibility=clip.visual.patch_size[0])
        self.clip, self.stride = clip.eval(), stride
        self.patches = PatchEncoder(clip.visual, stride=stride)
        self.texts = TextBank(lambda texts: encode_texts(self.clip, texts))

    @classmethod
    def from_config(cls, cfg):
        adapter = cfg.MODEL.CLIP_ADAPTER
        clip = load_clip(adapter.CLIP_MODEL_NAME, adapter.CLIP_WEIGHTS)
        own = {"clip": clip, "stride": cfg.MODEL.PATCH_TEXT.STRIDE}
        pixels = {"pixel_mean": CLIP_PIXEL_MEAN, "pixel_std": CLIP_PIXEL_STD}
        return super().from_config(cfg) | pixels | own

    def protocol(self):
        return super().protocol() | {"stride": self.stride}

    def encode(self, batched_inputs):
        batch = self.prepare(batched_inputs)
        images = batch.padded.tensor
        features = F.normalize(self.patches(images).features, dim=1)  # (B, D, h', w')
        for i, image in enumerate(batch.images):
            size, padded_size = tuple(image.shape[1:]), tuple(images.shape[2:])
            yield PatchEncoding(features[i], padded_size, size, batch.output_sizes[i])

    def decode(self, encoding, vocabulary):
        text = self.texts.features(vocabulary)  # (K, D)
        scores = (text @ encoding.features.flatten(1)).unflatten(1, encoding.features.shape[1:])
        scores = unpad(scores, padded_size=encoding.padded_size, size=encoding.size)
        return DensePrediction(scores, encoding.output_size, logit_scale=100.0)
