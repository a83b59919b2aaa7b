#!/usr/bin/env python
"""Convert released weight files to safetensors under the names of this package.

  clip    a CLIP: OpenAI's archive or state dict, open_clip's, a fine-tuned checkpoint
  swin    an official Swin Transformer (.pth, or .pkl with --allow-pickle)
  resnet  R-103.pkl (with --allow-pickle) or a torchvision ResNet
  ovseg   a whole OVSeg checkpoint: only its tensors are kept

Examples:
  convert_weights.py clip ViT-L-14.pt clip_vitL14.safetensors
  convert_weights.py clip epoch_5.pt ovseg_adapted.safetensors --into ovseg_swinbase.pth
  convert_weights.py resnet R-103.pkl R-103.safetensors --allow-pickle
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.clip.adapted import replace_clip
from ovseg.weights import catalogue
from ovseg.weights.backbones import Conversion, convert_resnet, convert_swin
from ovseg.weights.clip import load_clip_state
from ovseg.weights.download import DownloadError
from ovseg.weights.load import WeightsError, read_state_dict, write_safetensors


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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


def convert_backbone(args: argparse.Namespace) -> None:
    """Write a backbone under the model's names."""
    state = read_state_dict(args.input, allow_pickle=args.allow_pickle)
    result: Conversion = {"swin": convert_swin, "resnet": convert_resnet}[args.kind](state)
    write_safetensors(args.output, result.state, {"content": f"backbone {args.kind}"})
    report("mapped", tuple(result.state))
    report("dropped", result.dropped)


def convert_clip(args: argparse.Namespace) -> None:
    """Write a CLIP under OpenAI's names, or an OVSeg checkpoint with it inside."""
    clip_state = load_clip_state(args.input, allow_pickle=args.allow_pickle)
    if args.into is None:
        write_safetensors(args.output, clip_state, {"content": "clip"})
        report("mapped", tuple(clip_state))
        return
    checkpoint = read_state_dict(catalogue.resolve(args.into), allow_pickle=args.allow_pickle)
    result = replace_clip(checkpoint, clip_state)
    write_safetensors(
        args.output,
        result.state,
        {"content": "ovseg", "mask_prompt_fwd": str(result.mask_prompt_fwd)},
    )
    report("replaced", result.replaced)
    report("kept from the checkpoint", result.kept)
    print(f"mask prompt depth of the result: {result.mask_prompt_depth}")
    why = "brings a trained mask prompt" if result.mask_prompt_fwd else "has no trained mask prompt"
    print(f"the CLIP {why}: use MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD {result.mask_prompt_fwd}")


def convert_ovseg(args: argparse.Namespace) -> None:
    """Write the tensors of a checkpoint without what training kept beside them."""
    state = read_state_dict(args.input, allow_pickle=args.allow_pickle)
    write_safetensors(args.output, state, {"content": "ovseg"})
    report("mapped", tuple(state))


def report(what: str, names: Sequence[str]) -> None:
    """Print how many names there are and the first few of them."""
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    print(f"{what}: {len(names)}" + (f" ({shown})" if names else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.into is not None and args.kind != "clip":
        parser.error("--into goes with the kind clip")
    if args.output.exists() and not args.overwrite:
        parser.error(f"{args.output} exists; choose another name or pass --overwrite")
    convert = {"clip": convert_clip, "ovseg": convert_ovseg}.get(args.kind, convert_backbone)
    try:
        convert(args)
    except (WeightsError, catalogue.HubError, DownloadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
