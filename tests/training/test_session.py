from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
import yaml

from ovseg.d2.arguments import default_argument_parser
from ovseg.training.distributed import mean_over_ranks, run_distributed, wrap_for_ddp
from ovseg.training.randomness import derive_seed, seed_iteration
from ovseg.training.session import setup


def parse(output, *words):
    return default_argument_parser().parse_args(
        [*words, *("" if "OUTPUT_DIR" in words else ("OUTPUT_DIR", str(output)))]
    )


def test_detectron2_flags_and_their_abbreviations_are_understood():
    args = default_argument_parser().parse_args(
        ["--config", "ovseg_tiny", "--num-gpu", "2", "--eval", "--res", "SOLVER.MAX_ITER", "3"]
    )
    assert (args.config_file, args.num_gpus, args.eval_only, args.resume) == (
        *("ovseg_tiny", 2, True, True),
    )
    assert args.opts == ["SOLVER.MAX_ITER", "3"]
    assert (args.num_machines, args.machine_rank) == (1, 0)
    assert args.dist_url.startswith("tcp://127.0.0.1:")


def test_setup_leaves_the_config_the_environment_and_a_log(tmp_path):
    cfg = setup(parse(tmp_path, "--config-file", "ovseg_tiny", "SOLVER.MAX_ITER", "7"))
    assert cfg.SOLVER.MAX_ITER == 7 and cfg.is_frozen()
    kept = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert kept["SOLVER"]["MAX_ITER"] == 7 and kept["OUTPUT_DIR"] == str(tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["torch"]
    assert "command line" in (tmp_path / "log.txt").read_text()


def test_an_evaluation_does_not_touch_the_training_record(tmp_path):
    (tmp_path / "config.yaml").write_text("SEED: 5\n")
    setup(parse(tmp_path, "--config-file", "ovseg_tiny", "--eval-only"))
    assert (tmp_path / "config.yaml").read_text() == "SEED: 5\n"
    assert (tmp_path / "inference" / "config.yaml").is_file()


def test_no_gpus_means_the_cpu_and_a_missing_gpu_is_an_error(tmp_path):
    words = ("--config-file", "ovseg_tiny", "--num-gpus", "0", "MODEL.DEVICE", "cuda")
    assert setup(parse(tmp_path, *words)).MODEL.DEVICE == "cpu"
    if not torch.cuda.is_available():
        words = ("--config-file", "ovseg_tiny", "MODEL.DEVICE", "cuda")
        with pytest.raises(ValueError, match=r"MODEL.DEVICE: .*'cuda' was asked for.*--num-gpus 0"):
            setup(parse(tmp_path, *words))


def test_a_missing_seed_is_drawn_once_and_found_again_on_resume(tmp_path):
    words = ("--config-file", "ovseg_tiny", "SEED", "-1")
    first = setup(parse(tmp_path, *words)).SEED
    assert first >= 0
    resumed = setup(parse(tmp_path, "--resume", *words))
    assert first == resumed.SEED
    started_over = setup(parse(tmp_path, *words))
    assert first != started_over.SEED


def test_an_evaluation_asks_for_no_clip_weights(tmp_path):
    words = ["--config-file", "ovseg_swinB", "--eval-only", "OUTPUT_DIR", str(tmp_path)]
    missing = ["MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "gone.safetensors"]
    args = default_argument_parser().parse_args([*words, *missing])
    assert setup(args).MODEL.CLIP_ADAPTER.CLIP_WEIGHTS == ""


def test_a_missing_config_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"--config-file: .*ovseg_tiny"):
        setup(parse(tmp_path))


def test_an_evaluation_takes_the_config_of_the_weights(tmp_path):
    weights = ("MODEL.WEIGHTS", "ovseg_tiny")
    assert setup(parse(tmp_path, "--eval-only", *weights)).MODEL.CLIP_ADAPTER.MASK_THR == 0.4
    with pytest.raises(ValueError, match="--config-file: expected"):
        setup(parse(tmp_path, *weights))  # training


def test_a_training_record_does_not_name_the_released_weights(tmp_path):
    clip = ("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "random")
    assert setup(parse(tmp_path, "--config-file", "ovseg_swinB", *clip)).MODEL.TRAINED_WEIGHTS == ""
    words = ("--config-file", "ovseg_swinB", "--eval-only")
    assert setup(parse(tmp_path, *words)).MODEL.TRAINED_WEIGHTS == "ovseg_swinB"


def draw():
    return random.random(), float(np.random.rand()), torch.rand(2).tolist()


def test_an_iterations_random_numbers_depend_on_seed_iteration_and_rank_only():
    seen = []
    for arguments in ((1, 5, 0), (1, 5, 1), (1, 6, 0), (2, 5, 0)):
        seed_iteration(*arguments)
        seen.append(draw())
    assert len({str(numbers) for numbers in seen}) == 4
    seed_iteration(1, 5)
    assert draw() == seen[0]


def test_derived_seeds_tell_paths_of_different_length_apart():
    assert derive_seed(3, 1) != derive_seed(3, 1, 0)
    assert 0 <= derive_seed(3) < 2**64


def test_one_process_runs_in_place_unwrapped_and_unreduced():
    seen = []
    run_distributed(seen.append, default_argument_parser().parse_args(["--num-gpus", "0"]))
    assert seen[0].num_gpus == 0
    model = torch.nn.Linear(1, 1)
    assert wrap_for_ddp(model) is model
    assert mean_over_ranks({"b": torch.tensor(2.0), "a": torch.tensor(0.5)}) == {"b": 2.0, "a": 0.5}
    assert mean_over_ranks({}) == {}
