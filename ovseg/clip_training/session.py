"""From a command line to a run that adapts CLIP: pairs, weights, evaluation."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.clip_training.accuracy import dataset_evaluation, evaluate_regions
from ovseg.clip_training.adaptation_pairs import join_pairs, label_pairs, record_pairs
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.clip_training.mined_pairs import open_records
from ovseg.clip_training.train import Evaluate
from ovseg.d2.utils import comm, setup_logger
from ovseg.data.catalog import register_builtin
from ovseg.data.label_pairs import LabelPairDataset
from ovseg.data.pair_files import FolderPairDataset, TarPairDataset, TsvPairDataset
from ovseg.data.pairs import PairDataset
from ovseg.mining.records import filter_records
from ovseg.utils.environment import write_environment
from ovseg.utils.folder_lock import only_run
from ovseg.utils.threads import bound_threads
from ovseg.vocab import Vocabulary, class_list
from ovseg.weights.clip import MASK_EMBEDDING, load_clip_state
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.load import load_strict

__all__ = ["load_clip", "make_evaluation", "open_pairs", "set_up"]

logger = logging.getLogger(__name__)

LABEL_INDEX = "label_regions.npz"


def set_up(args: argparse.Namespace) -> torch.device:
    """Prepare logging and the record of the environment; returns the device to run on."""
    if comm.is_main_process():
        with only_run(args.output, what="the start of a run"):
            write_environment(args.output)
    comm.synchronize()
    setup_logger(str(args.output), distributed_rank=comm.get_rank(), name="ovseg")
    register_builtin()
    bound_threads()
    use_gpu = torch.cuda.is_available() and args.num_gpus != 0
    return torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu")


def load_clip(config: ClipTrainConfig, device: torch.device) -> MaskPromptedCLIP:
    """Build the CLIP of a run with the weights that it starts from.

    A prompt that was trained keeps its depth; one of zeros gives way to the run's.

    Args:
        config: model, weights and mask_prompt_depth count.
        device: where to put it.

    Returns:
        The CLIP.

    Raises:
        ValueError: if no weights are named.
        WeightsError: if they do not fit the model.
    """
    if not config.weights:
        raise ValueError(
            "weights: expected what to start from, got ''; add `weights clip_ViT-L-14`, the "
            "clip.safetensors of an earlier run, or an OVSeg checkpoint"
        )
    if config.weights == RANDOM:
        torch.manual_seed(config.seed)
        return build_clip(config.model, mask_prompt_depth=config.mask_prompt_depth).to(device)
    state = load_clip_state(find_weights(config.weights))
    prompt = state.get(MASK_EMBEDDING)
    trained = prompt is not None and bool(prompt.count_nonzero())
    depth = len(prompt) if prompt is not None and trained else config.mask_prompt_depth
    if trained and depth != config.mask_prompt_depth:
        logger.warning("The weights bring a trained mask prompt of depth %d; it is kept", depth)
    clip = build_clip(config.model, mask_prompt_depth=depth)
    if not trained:
        state[MASK_EMBEDDING] = clip.visual.mask_embedding.detach()
    load_strict(clip, state)
    return clip.to(device)


def open_pairs(
    args: argparse.Namespace, config: ClipTrainConfig, clip: MaskPromptedCLIP
) -> PairDataset:
    """Open what `--labels` and `--pairs` name.

    Raises:
        ValueError: if nothing is named, or no pair is left.
    """
    if not args.pairs and not args.labels:
        raise ValueError("--pairs: expected records, a .tsv or .tar files, or --labels DATASET")
    labels = _open_labels(args, config, clip) if args.labels else None
    return join_pairs(config, labels, _open_files(args, config, clip) if args.pairs else None)


def _open_labels(
    args: argparse.Namespace, config: ClipTrainConfig, clip: MaskPromptedCLIP
) -> LabelPairDataset:
    """The main process reads the label maps first and leaves the others a list of their regions."""
    if not comm.is_main_process():
        comm.synchronize()
    pairs = label_pairs(
        args.labels,
        config,
        image_size=clip.image_size,
        limit=args.labels_limit,
        index_file=args.output / LABEL_INDEX,
    )
    if comm.is_main_process():
        comm.synchronize()
    return pairs


def _open_files(
    args: argparse.Namespace, config: ClipTrainConfig, clip: MaskPromptedCLIP
) -> PairDataset:
    options: dict[str, Any] = {
        "image_size": clip.image_size,
        "min_scale": config.min_scale,
        "seed": config.seed,
    }
    first = Path(args.pairs[0])
    tars = first.is_dir() and any(first.glob("*.tar"))
    if first.suffix in (".tsv", ".csv"):
        if len(args.pairs) > 1:
            raise ValueError(f"--pairs: expected one table, got {args.pairs}; join them first")
        return TsvPairDataset(first, **options)
    if tars or first.suffix == ".tar":
        return TarPairDataset(args.pairs, **options)
    records, image_root = open_records(args.pairs, args.image_root)
    chosen = filter_records(
        records,
        min_score=args.min_score,
        min_margin=args.min_margin,
        mutual=args.mutual,
        min_count=args.min_count,
        max_count=args.max_count,
    )
    logger.info("%d of %d records are used", len(chosen), len(records))
    return record_pairs(chosen, image_root, config, clip.image_size)


def make_evaluation(args: argparse.Namespace, clip: MaskPromptedCLIP) -> Evaluate | None:
    """Prepare the evaluation that the flags ask for; None where they ask for none."""
    if not comm.is_main_process():
        return lambda _: {}  # the main process evaluates, the others wait for it
    if args.eval_folder is not None:
        vocabulary = Vocabulary.make(class_list(args.eval_classes).names)
        pairs = FolderPairDataset(args.eval_folder, vocabulary.names, image_size=clip.image_size)
        return lambda clip: evaluate_regions(clip, pairs, vocabulary)
    if args.eval_dataset:
        return dataset_evaluation(
            args.eval_dataset, image_size=clip.image_size, limit=args.eval_limit
        )
    return None
