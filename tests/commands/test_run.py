"""`ovseg COMMAND`: what is imported when, what errors look like, which status comes back."""

from __future__ import annotations

import argparse

import pytest

import ovseg
from ovseg.commands.flags import choices, prepare
from ovseg.commands.run import COMMANDS, main
from ovseg.commands.segment import sample_folder
from ovseg.data.captions.sources import KINDS
from ovseg.exports import EXPORT_FORMATS
from ovseg.mining import options
from ovseg.mining.executors import EXECUTORS
from ovseg.mining.outcomes import EXPORTS
from ovseg.mining.taggers import TAGGERS
from ovseg.segmentation import VIEWS
from ovseg.tinyscapes import DEFAULT_COUNTS
from ovseg.tuning.tune import Grid
from ovseg.utils.command_line import UsageError, run_parsed, usage
from ovseg.vocab import TEMPLATE_NAMES
from tests.helpers import ROOT, run_python


def test_the_overview_names_every_command_and_wrong_ones_are_told(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ovseg {ovseg.__version__}\n"
    assert main(["segmnet", "x.jpg"]) == 2
    assert capsys.readouterr().err.endswith("got 'segmnet'; did you mean segment?\n")
    assert main([]) == 2


def test_help_of_every_command_comes_without_torch_numpy_or_pillow():
    code = (
        "import sys\n"
        "from ovseg.commands.run import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    try:\n"
        "        main([name, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'cv2', 'open_clip'} & sys.modules.keys()\n"
        "print('heavy:', sorted(heavy))\n"
    )
    run = run_python("-c", code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("heavy: []\n")
    assert run.stdout.count("usage: ovseg ") == len(COMMANDS)


def test_flags_offer_what_there_is():
    assert choices.CAPTION_KINDS == KINDS
    assert set(choices.EXECUTORS) == set(EXECUTORS)
    assert tuple(EXPORT_FORMATS) == choices.EXPORT_FORMATS
    assert choices.PAIR_EXPORTS == EXPORTS
    assert tuple(options.PRECISIONS) == choices.PRECISIONS
    assert choices.PROPOSALS == options.PROPOSALS
    assert choices.TAGGERS == TAGGERS
    assert choices.TEMPLATE_NAMES == TEMPLATE_NAMES
    assert choices.VIEWS == VIEWS
    assert prepare.SCENES == DEFAULT_COUNTS


def test_the_settings_that_tune_tries_by_default_are_the_librarys():
    from ovseg.commands.flags.tune import make_parser
    from ovseg.commands.tune import ensemble_weights, numbers

    args = make_parser("tune").parse_args(["--dataset", "x"])
    weights, thresholds = ensemble_weights(args.ensemble_weights), numbers("", args.thresholds)
    assert Grid(weights, thresholds, tuple(args.templates.split(","))) == Grid()


def test_each_dataset_has_a_plan_and_its_splits():
    from ovseg.commands.prepare import PLANS
    from ovseg.data.prepare import ade20k, cityscapes, coco, loveda, pascal_context, vaihingen
    from ovseg.data.prepare.pascal_voc import SPLITS as VOC_SPLITS

    splits = {name: made[1] for name, made in prepare.LABELLED.items()}
    assert splits.keys() == PLANS.keys()
    assert splits["ade20k"] == tuple(ade20k.SPLITS)
    assert splits["ade20k_full"] == tuple(ade20k.FULL_SPLITS)
    assert splits["coco_stuff_10k"] == coco.STUFF_10K_SPLITS
    for name, module in (
        ("cityscapes", cityscapes),
        ("loveda", loveda),
        ("pascal_context", pascal_context),
        ("vaihingen", vaihingen),
    ):
        assert splits[name] == module.SPLITS
    assert splits["voc"] == VOC_SPLITS


def test_every_script_for_a_dataset_is_a_command():
    scripts = {file.stem.removeprefix("prepare_") for file in ROOT.glob("datasets/prepare_*.py")}
    assert scripts == {*prepare.LABELLED, *prepare.OTHERS}


def test_the_sample_scenes_are_found_in_a_checkout():
    assert sample_folder() == ROOT / "demo" / "samples"
    assert len(list(sample_folder().glob("*.jpg"))) == 6


def run(work, *words: str) -> int:
    return run_parsed(argparse.ArgumentParser(prog="ovseg work"), work, words)


def fail(error: BaseException):
    def work(_: argparse.Namespace) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("give one"), 2, "ovseg work: error: give one"),
        (ValueError("two\n  lines"), 1, "ovseg work: error: two lines"),
        (KeyError("no class 'x' here"), 1, "ovseg work: error: no class 'x' here"),
        (KeyError("x"), 1, "ovseg work: error: KeyError: x; this is a fault of the program"),
        (TypeError("no"), 1, "ovseg work: error: TypeError: no; this is a fault of the program"),
        (MemoryError(), 1, "ovseg work: error: expected more memory than there is"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, "No such file: 'a.txt'"),
        (KeyboardInterrupt(), 130, "ovseg work: interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    assert run(fail(error)) == status
    [told] = capsys.readouterr().err.splitlines()
    assert line in told


def test_a_traceback_comes_on_request_only():
    with pytest.raises(ValueError, match="why"):
        run(fail(ValueError("why")), "--debug")


def test_what_is_refused_before_the_work_is_misuse(capsys):
    def work(_: argparse.Namespace) -> None:
        with usage():
            raise FileNotFoundError("no such dataset")

    assert run(work) == 2
    assert capsys.readouterr().err == "ovseg work: error: no such dataset\n"


def test_a_status_comes_back_and_other_results_are_success():
    assert run(lambda _: 1) == 1
    assert run(lambda _: {"mIoU": 3.0}) == 0
    assert run(lambda _: True) == 0


def test_the_module_is_the_command_and_a_closed_pipe_is_no_error():
    script = "python -m ovseg --help | head -1"
    shell = run_python("-c", f"import os; os.system({script!r})")
    assert shell.stdout == "usage: ovseg COMMAND [...]\n" and "Traceback" not in shell.stderr


def test_ctrl_c_ends_a_command_in_one_line(tmp_path):
    code = (
        "import os, signal, sys\n"
        "import ovseg.commands.verify as work\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # off in background jobs
        "work.main = lambda args: os.kill(os.getpid(), signal.SIGINT)\n"
        "from ovseg.commands.run import main\n"
        "sys.exit(main(['verify']))\n"
    )
    run = run_python("-c", code, cwd=tmp_path)
    assert run.returncode == 130 and run.stderr.endswith("ovseg verify: interrupted\n")
    assert "Traceback" not in run.stderr
