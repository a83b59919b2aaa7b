"""A matcher of a few thousand weights, and the config that loads it."""

from __future__ import annotations

from pathlib import Path

import torch

from ovseg.projects.pnp_ovss.loading import bundle
from ovseg.projects.pnp_ovss.matcher import BlipMatcher
from ovseg.weights.load import write_safetensors

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "sky", "grass"]
PIECES += ["house", "tree", "traffic", "light", "tv", "##mon", "##itor", "##light", "sea"]
SIZES = {
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": 0.3,
    },
    "text": {
        "vocab_size": len(PIECES) + 2,
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "bos_token_id": len(PIECES),
        "pad_token_id": 0,
        "sep_token_id": 3,
        "initializer_range": 0.3,
    },
    "image_text_hidden_size": 16,
    "initializer_range": 0.3,
}


def make_matcher() -> BlipMatcher:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return BlipMatcher(*bundle(SIZES, PIECES)).eval()


def write_matcher(folder: Path) -> Path:
    path = folder / "matcher.safetensors"
    state = {f"matcher.{k}": v for k, v in make_matcher().state_dict().items()}
    write_safetensors(path, state)
    return path


def write_config(folder: Path) -> Path:
    """A config like that of the miniature, with the matcher above."""
    path = folder / "tiny.yaml"
    path.write_text(
        f"""
MODEL:
  META_ARCHITECTURE: PnPOVSS
  WEIGHTS: "{write_matcher(folder)}"
  DEVICE: cpu
  CLIP_ADAPTER:
    CLIP_MODEL_NAME: ovseg-tiny
    CLIP_WEIGHTS: ovseg_tiny
  PNP_OVSS:
    ITM:
      IMAGE_SIZE: 48
      LAYER: 2
      HEAD: 1
    DROP:
      TOPK: 2
    BACKGROUND:
      POLICY: never
    POST:
      MODE: blur
INPUT:
  FORMAT: RGB
  MIN_SIZE_TEST: 0
DATASETS:
  TEST: [tinyscapes_val_sem_seg]
DATALOADER:
  NUM_WORKERS: 0
TEST:
  AUG:
    MIN_SIZES: [96, 128]
""",
        encoding="utf-8",
    )
    return path
