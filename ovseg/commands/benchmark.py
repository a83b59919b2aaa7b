"""`ovseg benchmark`: what segmenting a picture costs."""

from __future__ import annotations

import argparse

import torch

from ovseg.benchmark import (
    compare_label_maps,
    compare_text_towers,
    draw_words,
    measure_evaluation,
    measure_words,
    stages,
)
from ovseg.commands.models import build_ovseg
from ovseg.commands.performance import measure_performance
from ovseg.config import load_cfg
from ovseg.predictor import Predictor
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.command_line import usage
from ovseg.utils.environment import environment_record
from ovseg.utils.files import require_writable, write_json
from ovseg.vocab import Vocabulary


def main(args: argparse.Namespace) -> dict[str, object]:
    """Measure what is asked for, print, and return the figures."""
    joined = (args.receipt, args.grow, args.dataset, args.ways, args.page, args.train is not None)
    if any(joined):
        return measure_performance(args)
    return measure_stages(args)


def measure_stages(args: argparse.Namespace) -> dict[str, object]:
    """Measure the stages of one config and what savings bring, print, and return the figures."""
    with usage():
        if args.output is not None:
            require_writable(args.output.parent)
        cfg = load_cfg(args.config_file, args.opts)
        model = build_ovseg(cfg)
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
    figures: dict[str, object] = {
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
