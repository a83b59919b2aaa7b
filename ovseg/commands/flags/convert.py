"""`ovseg convert`: released weights in the form of this package."""

from __future__ import annotations

import argparse
from pathlib import Path

WORK = "convert"
DESCRIPTION = """Convert released weight files to safetensors under the names of this package.

  clip    a CLIP: OpenAI's archive or state dict, open_clip's, a fine-tuned checkpoint
  swin    an official Swin Transformer (.pth, or .pkl with --allow-pickle)
  resnet  R-103.pkl (with --allow-pickle) or a torchvision ResNet
  ovseg   a whole OVSeg checkpoint: only its tensors are kept
"""
EXAMPLES = """
examples:
  %(prog)s clip ViT-L-14.pt clip_vitL14.safetensors
  %(prog)s clip epoch_5.pt ovseg_adapted.safetensors --into ovseg_swinbase.pth
  %(prog)s resnet R-103.pkl R-103.safetensors --allow-pickle
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg convert`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("clip", "swin", "resnet", "ovseg"))
    parser.add_argument("input", type=Path, help="the file to read")
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument(
        "--into",
        metavar="OVSEG_CHECKPOINT",
        help="clip: write this OVSeg checkpoint (a path, or a name such as ovseg_tiny) with its "
        "CLIP replaced, instead of the CLIP alone",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read .pkl files; only arrays, tensors and plain containers are accepted in them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser
