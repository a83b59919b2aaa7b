"""Measure what segmenting one image costs, stage by stage, and what the saving measures save.

Runs a config with the given or with random weights on a random image. What is learned changes the
cost in one way only: masks that a trained model leaves empty cost CLIP nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.benchmark import (
    compare_label_maps,
    compare_text_towers,
    draw_words,
    measure_evaluation,
    measure_words,
    stages,
)
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.predictor import Predictor
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.environment import environment_record
from ovseg.utils.files import write_json
from ovseg.vocab import Vocabulary

EXAMPLE = """
examples:
  %(prog)s --config-file ovseg_swinB --size 640 853 --benchmark ade20k_847
  %(prog)s --config-file ovseg_swinB --size 427 640 --questions 20
  %(prog)s --size 128 171 --output-size 3000 4000 --benchmark ade20k_847 --limit-gib 1
"""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="ovseg_tiny", help="path or shipped name")
    parser.add_argument("--weights", default="random", help="name, path, or random")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("H", "W"))
    parser.add_argument("--output-size", type=int, nargs=2, metavar=("H", "W"), help="of labels")
    parser.add_argument("--benchmark", default="ade20k_150", help="class list to segment")
    parser.add_argument("--texts", type=int, default=64, help="prompts to compare text towers on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--limit-gib", type=float, default=2.0, help="room for all scores at full size, see labels"
    )
    parser.add_argument("--questions", type=int, default=0, metavar="N", help="ask N vocabularies")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    return parser.parse_args(words)


def main(args: argparse.Namespace) -> dict[str, object]:
    """Measure, print, and return the figures."""
    cfg = load_cfg(args.config_file, args.opts)
    model = build_model(cfg).eval()
    load_for_evaluation(model, args.weights)
    vocabulary = Vocabulary.benchmark(args.benchmark, templates=model.templates)
    height, width = args.size
    image = 255 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    print(
        f"{args.config_file}, {height} x {width}, {len(vocabulary)} classes, {model.device}, "
        f"{torch.get_num_threads()} threads"
    )
    seconds = stages(model, image, vocabulary, repeats=args.repeats)
    for stage, value in seconds.items():
        share = "" if stage == "text, first time" else f"{value / seconds['total']:8.0%}"
        print(f"  {stage:32}{value * 1e3:10.1f} ms{share}")
    template = vocabulary.templates[0]
    prompts = [template.format(name) for name, *_ in vocabulary.prompts[: args.texts]]
    out_height, out_width = args.output_size or args.size
    inputs = [{"image": image, "height": out_height, "width": out_width}]
    [prediction] = model.predict(inputs, vocabulary)
    maps = compare_label_maps(
        prediction, repeats=args.repeats, limit_bytes=round(args.limit_gib * 2**30)
    )
    whole = measure_evaluation(model, inputs[0], vocabulary, repeats=args.repeats)
    text = compare_text_towers(model, prompts, repeats=args.repeats)
    print(f"\ntext tower, 77 tokens -> up to the end of text:\n  {text.text()}")
    print(f"\nlabel map {out_height} x {out_width}, all scores -> bands:\n  {maps.text()}")
    print(f"\nevaluating the image, label map in bands: {whole}")
    words = None
    if args.questions:
        model.clip_adapter.text_bank.clear()  # the stages have met all words
        picture = image.byte().permute(1, 2, 0).numpy()
        asked = draw_words(vocabulary.names, args.questions)
        words = measure_words(Predictor.from_config(cfg, model), picture, asked)
        print(f"\none picture, {args.questions} vocabularies of 10 classes:\n  {words.text()}")
    figures = {
        "settings": {**vars(args), "output": str(args.output), "classes": len(vocabulary)},
        "stages": seconds,
        "text": text.record(),
        "labels": maps.record(),
        "evaluation": {"seconds": whole.seconds, "peak_bytes": whole.peak_bytes},
        "words": None if words is None else words.record(),
        "environment": environment_record(),
    }
    if args.output is not None:
        write_json(args.output, figures)
    return figures


if __name__ == "__main__":
    main(parse())
