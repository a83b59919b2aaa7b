"""`ovseg train-clip`: a CLIP that learns from noun-region pairs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovseg.d2.arguments import default_argument_parser

WORK = "train_clip"
DESCRIPTION = "Adapt a CLIP to noun-region pairs: fine-tuning, mask prompt tuning, both."
EXAMPLES = """
examples:
  fine-tune:        %(prog)s --config-file clip_ft_vitL14_paper --pairs mined --num-gpus 8
  prompts:          %(prog)s --config-file clip_mpt_vitL14_paper --pairs mined \\
                        weights output/clip/clip.safetensors
  both at once:     %(prog)s --config-file clip_tiny_ft --pairs mined mode both prompt_lr 5e-3
  with labels:      %(prog)s --config-file clip_adapt_vitL14 --pairs mined --mutual \\
                        --labels coco_2017_train_stuff_sem_seg
  exported pairs:   %(prog)s --config-file clip_tiny_ft --pairs export/pairs.tsv
  continue:         the same command with --resume
  evaluate:         %(prog)s --config-file clip_ft_vitL14_paper --eval-only \\
                        --eval-folder ade_gt_150cls_val

Settings are given as NAME VALUE at the end; ovseg.clip_training.config describes them. The result,
OUTPUT/clip.safetensors, goes into a model with ovseg convert clip ... --into ...
"""


def make_parser(program: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of `ovseg train-clip`."""
    parser = default_argument_parser(EXAMPLES)
    parser.prog, parser.description = program or parser.prog, DESCRIPTION
    add = parser.add_argument
    add(
        "--pairs",
        action="append",
        help="the miner's folder or a record file; a .tsv; a .tar or a "
        "folder of them; may be repeated",
    )
    add("--labels", help="training set with label maps: one pair per class and picture, as well")
    add("--labels-limit", type=int, help="number of pictures of --labels")
    add("--image-root", help="folder of the records' pictures (default: where they were mined)")
    add("--output", type=Path, default=Path("output/clip"), help="folder of the run")
    add("--min-score", type=float, help="records: least CLIP score")
    add("--min-margin", type=float, help="records: least margin over the second best region")
    add("--mutual", action="store_true", help="records: only pairs that chose each other")
    add("--min-count", type=int, help="records: only nouns with at least so many pairs")
    add("--max-count", type=int, help="records: at most so many pairs per noun")
    add("--eval-dataset", help="dataset with label maps, such as ade20k_sem_seg_val, or a YAML")
    add("--eval-folder", type=Path, help="crops sorted into folders by class, instead")
    add("--eval-classes", default="ade20k_150", help="class list of --eval-folder")
    add("--eval-limit", type=int, help="number of pictures of --eval-dataset")
    return parser
