"""`ovseg convert`: released weights in the form of this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ovseg.clip.adapted import replace_clip
from ovseg.utils.command_line import UsageError, usage
from ovseg.utils.files import require_writable
from ovseg.weights import catalogue
from ovseg.weights.backbones import Conversion, convert_resnet, convert_swin
from ovseg.weights.clip import load_clip_state
from ovseg.weights.load import read_state_dict, write_safetensors


def main(args: argparse.Namespace) -> None:
    """Convert one file."""
    if args.into is not None and args.kind != "clip":
        raise UsageError("--into goes with the kind clip")
    if args.output.exists() and not args.overwrite:
        raise UsageError(f"{args.output} exists; choose another name or pass --overwrite")
    with usage():
        require_writable(args.output.parent)
    {"clip": convert_clip, "ovseg": convert_ovseg}.get(args.kind, convert_backbone)(args)
    print(f"wrote {args.output}")


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
