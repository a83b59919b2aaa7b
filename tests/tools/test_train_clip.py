from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ovseg
from ovseg.clip import build_clip
from ovseg.clip_training.adaptation_pairs import adaptation_pairs
from ovseg.clip_training.config import load_clip_config
from ovseg.clip_training.session import load_clip
from ovseg.commands import train_clip
from ovseg.commands.flags.train_clip import make_parser
from ovseg.commands.run import run_command
from ovseg.data.balanced_pairs import NounBalancedPairs
from ovseg.data.captions.sources import open_source
from ovseg.data.pairs import PairDataset
from ovseg.data.sampling import SampleKey
from ovseg.mining.executors import run_mining
from ovseg.mining.parts import MiningConfig
from ovseg.mining.records import filter_records, read_records
from ovseg.tinyscapes import SEEN_NAMES, render_scene, training_labels
from ovseg.utils.command_line import UsageError
from ovseg.utils.images import write_png
from ovseg.weights import catalogue
from ovseg.weights.clip import load_clip_state
from ovseg.weights.load import read_state_dict
from tests.helpers import ROOT, run_python
from tests.mining.toy_mining import make_parts, write_world

TOOL = ROOT / "tools" / "train_clip.py"
PREFIX = "clip_adapter.clip_model."
SETTINGS = ("batch_size", "4", "workers", "0", "precision", "fp32", "warmup", "1", "lr", "1e-3")
NOUNS = ("boat", "cat", "dog")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve crops with masks and the table of them."""
    rng = np.random.default_rng(0)
    lines = ["title\tfilepath\tmaskpath\tnoun"]
    for index in range(12):
        mask = np.zeros((20, 24), np.uint8)
        mask[: 8 + index, :13] = 255
        write_png(tmp_path / f"images/{index}.png", rng.integers(0, 256, (20, 24, 3), np.uint8))
        write_png(tmp_path / f"masks/{index}.png", mask)
        noun = NOUNS[index % 3]
        lines.append(f"a photo of a {noun}.\timages/{index}.png\tmasks/{index}.png\t{noun}")
    table = tmp_path / "pairs.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table


def run(*arguments: str | Path) -> None:
    train_clip.run(make_parser().parse_args([str(a) for a in arguments]))


def segment(weights: Path | str, *, mask_prompt: bool) -> dict[str, float]:
    opts = ["MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", mask_prompt]
    predictor = ovseg.load(str(weights), config="ovseg_tiny", opts=opts)
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    image[20:60, 30:80] = (200, 40, 40)
    result = predictor.segment(image, ["boat", "grass", "sky"])
    return {name: float(score) for name, score in zip(result.names, result.scores, strict=True)}


def test_the_result_goes_through_conversion_into_a_model_that_says_something_else(
    tmp_path, pairs, capsys
) -> None:
    output = tmp_path / "out"
    command = ("--config-file", "clip_tiny_ft", "--pairs", pairs, "--output", output)
    run(*command, *SETTINGS, "mode", "both", "prompt_lr", "0.02", "steps", "2")
    result = json.loads((output / "result.json").read_text())
    assert result["steps"] == 2
    adapted = load_clip_state(output / "clip.safetensors")
    bundled = catalogue.resolve("ovseg_tiny")
    assert adapted["visual.mask_embedding"].count_nonzero() > 0

    converted = tmp_path / "ovseg.safetensors"
    convert = partial(run_command, "convert")
    checkpoint = str(output / "clip.safetensors")
    assert convert(["clip", checkpoint, str(converted), "--into", str(bundled)]) == 0
    assert "MASK_PROMPT_FWD True" in capsys.readouterr().out
    state, before = read_state_dict(converted), read_state_dict(bundled)
    assert state.keys() == before.keys()
    moved = {name for name in state if not torch.equal(state[name], before[name])}
    assert {name.removeprefix(PREFIX).split(".")[0] for name in moved} <= {"visual", "logit_scale"}
    assert PREFIX + "visual.mask_embedding" in moved
    old, new = segment(bundled, mask_prompt=False), segment(converted, mask_prompt=True)
    assert old.keys() == new.keys()
    assert old != new
    assert all(np.isfinite(list(new.values())))


def test_a_run_of_no_steps_gives_a_model_that_says_the_same(tmp_path, pairs) -> None:
    output = tmp_path / "out"
    run("--config-file", "clip_tiny_mpt", "--pairs", pairs, "--output", output, "steps", "0")
    converted = tmp_path / "ovseg.safetensors"
    clip, bundled = str(output / "clip.safetensors"), catalogue.resolve("ovseg_tiny")
    convert = partial(run_command, "convert")
    assert convert(["clip", clip, str(converted), "--into", "ovseg_tiny"]) == 0
    state, before = read_state_dict(converted), read_state_dict(bundled)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert segment(bundled, mask_prompt=False) == segment(converted, mask_prompt=False)


def test_checkpoints_are_readable_as_clips_too(tmp_path, pairs) -> None:
    output = tmp_path / "out"
    run(
        "--config-file",
        "clip_tiny_ft",
        "--pairs",
        pairs,
        "--output",
        output,
        *SETTINGS,
        "epochs",
        "1",
    )
    newest = output / (output / "last_checkpoint").read_text()
    final = load_clip_state(output / "clip.safetensors")
    assert all(torch.equal(tensor, final[name]) for name, tensor in load_clip_state(newest).items())


def test_crops_in_folders_measure_a_clip(tmp_path, pairs) -> None:
    for number, name in enumerate(("aeroplane", "bicycle", "bird")):
        crop = np.full((30, 20, 3), 60 * number, np.uint8)
        write_png(tmp_path / "gt" / name / "0.png", crop)
    output = tmp_path / "out"
    measure = ("--eval-folder", tmp_path / "gt", "--eval-classes", "pascal_voc_20")
    run("--config-file", "clip_tiny_ft", "--output", output, "--eval-only", *measure)
    found = json.loads((output / "evaluation.json").read_text())["figures"]
    assert set(found) == {"top1", "top5", "macro-top1", "macro-top5"}
    assert 0 <= found["top1"] <= found["top5"] <= 100
    with pytest.raises(UsageError, match="add --eval-dataset or --eval-folder"):
        run("--config-file", "clip_tiny_ft", "--output", output, "--eval-only")


def test_a_prompt_that_was_trained_keeps_its_depth_and_random_weights_follow_the_seed(
    tmp_path,
) -> None:
    config = load_clip_config("clip_tiny_mpt", {"mask_prompt_depth": 2})
    clip = load_clip(config, torch.device("cpu"))
    assert clip.visual.mask_prompt_depth == 2  # the bundled prompt of depth 3 was never trained
    state = {**clip.state_dict(), "visual.mask_embedding": torch.ones(1, 64, 128)}
    torch.save(state, tmp_path / "clip.pt")
    trained = load_clip_config("clip_tiny_mpt", {"weights": str(tmp_path / "clip.pt")})
    assert load_clip(trained, torch.device("cpu")).visual.mask_prompt_depth == 1
    fresh = load_clip(load_clip_config("clip_tiny_from_nothing", {"seed": 4}), torch.device("cpu"))
    torch.manual_seed(4)
    drawn = build_clip("ovseg-tiny", mask_prompt_depth=3)
    assert torch.equal(fresh.visual.conv1.weight, drawn.visual.conv1.weight)
    with pytest.raises(ValueError, match="weights: expected what to start from"):
        load_clip(load_clip_config("clip_mpt_vitL14_paper"), torch.device("cpu"))


def test_mined_records_train_wherever_the_tool_is_started(tmp_path, monkeypatch) -> None:
    source = open_source(write_world(tmp_path / "world", count=4))
    run_mining(source, MiningConfig(), tmp_path / "mined", make_parts=make_parts)
    monkeypatch.chdir(tmp_path)
    command = ("--config-file", "clip_tiny_ft", "--pairs", "mined", "--output", "out")

    run(*command, *SETTINGS, "steps", "1")
    assert json.loads(Path("out/result.json").read_text())["steps"] == 1
    with pytest.raises(UsageError, match=r"^mined: its pictures are not in"):
        run(*command, "--image-root", "out", *SETTINGS)


def test_the_tool_runs_from_any_directory(tmp_path, pairs) -> None:
    command = ("--config-file", "clip_tiny_ft", "--pairs", str(pairs), "--output", "out")
    done = run_python(str(TOOL), *command, *SETTINGS, "steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["steps"] == 1


def write_labelled(folder: Path, pictures: int) -> Path:
    """Training pictures of tinyscapes with their labels, as a dataset of one's own."""
    for index in range(pictures):
        scene = render_scene("train", index)
        write_png(folder / f"images/{index}.png", scene.image)
        write_png(folder / f"labels/{index}.png", training_labels(scene.labels))
    content = {"name": f"few_scenes_{pictures}", "images": "images", "labels": "labels"}
    file = folder / "few.yaml"
    file.write_text(yaml.safe_dump({**content, "classes": list(SEEN_NAMES)}))
    return file


def test_labels_and_other_pairs_train_together(tmp_path, pairs, monkeypatch) -> None:
    labels, output = write_labelled(tmp_path / "labelled", 4), tmp_path / "out"
    command = ("--config-file", "clip_tiny_adapt", "--labels", labels, "--output", output)
    taken: list[PairDataset] = []
    train = train_clip.train_clip
    monkeypatch.setattr(
        train_clip, "train_clip", lambda *a, **k: taken.append(a[2]) or train(*a, **k)
    )

    def main(*arguments: str | Path) -> PairDataset:
        words = (*command, *arguments, *SETTINGS, "steps", "1")
        train_clip.run(make_parser().parse_args([str(word) for word in words]))
        assert json.loads((output / "result.json").read_text())["steps"] == 1
        return taken[-1]

    alone = main("--labels-limit", "2")
    assert set(alone.nouns) < set(SEEN_NAMES)
    assert isinstance(alone, NounBalancedPairs)
    assert {number for number, _ in alone.pairs.regions.tolist()} == {0, 1}
    assert alone.pairs.damage == 0.5
    joined = main("--pairs", pairs)
    assert joined.nouns[-12:] == list(NOUNS) * 4
    assert len(joined) > len(alone) + 12
    assert (output / "label_regions.npz").is_file()


def test_a_dataset_yaml_is_measured_on(tmp_path, capsys) -> None:
    file = write_labelled(tmp_path / "labelled", 2)
    command = ("--config-file", "clip_tiny_ft", "--eval-only", "--output", tmp_path / "out")
    run(*command, "--eval-dataset", file)
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())["figures"]
    assert 0 <= figures["top1"] <= figures["top5"] <= 100
    with pytest.raises(UsageError, match=r"got 'tinyscapes_val_sem_se'; did you mean 'tinyscapes_"):
        run(*command, "--eval-dataset", "tinyscapes_val_sem_se")


def test_pairs_mined_with_labels_train_beside_the_labels(tmp_path, monkeypatch) -> None:
    labels, mined = write_labelled(tmp_path / "labelled", 3), tmp_path / "mined"
    for index in range(3):
        caption = render_scene("train", index).captions[0]
        (tmp_path / f"labelled/images/{index}.txt").write_text(caption)
    words = ["--source", str(labels.parent / "images"), "--output", str(mined)]
    words += ["--labels", str(labels), "--weights", "ovseg_tiny", "--tagger", "textblob"]
    assert run_command("mine", words) == 0
    records = read_records(mined)
    of_labels = [r for r in records.to_pylist() if r["origin"] == "label"]
    assert 3 < len(of_labels) < len(records)
    assert {record["noun"] for record in of_labels} <= set(SEEN_NAMES)
    manifest = json.loads((mined / "manifest.json").read_text())
    assert manifest["models"]["labels"] == "few_scenes_3:3"

    output = tmp_path / "out"
    command = ("--config-file", "clip_tiny_adapt", "--labels", labels, "--pairs", mined, "--mutual")
    run(*command, "--output", output, *SETTINGS, "label_share", "0.4", "steps", "1")
    assert json.loads((output / "result.json").read_text())["steps"] == 1

    config = load_clip_config("clip_tiny_adapt", {"label_share": 0.4, "noun_exponent": 1.0})
    pairs = adaptation_pairs(config, image_size=(64, 64), labels=str(labels), records=[mined])
    from_labels, from_records = pairs.parts
    assert len(from_labels) / 0.4 <= len(pairs) + 1
    kept = filter_records(records, mutual=True)
    assert list(from_records.nouns) == kept["noun"].to_pylist()
    assert sum(record["mutual"] for record in records.to_pylist()) == len(kept)
    first = pairs[SampleKey(3, 0)]
    (labels.parent / "images/0.png").unlink()  # they are in memory
    assert torch.equal(pairs[SampleKey(3, 0)]["image"], first["image"])
    with pytest.raises(ValueError, match="expected labels, mined pairs or both"):
        adaptation_pairs(config, image_size=(64, 64))


def test_neither_labels_nor_pairs_is_an_error(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"^--pairs: expected records, .*--labels"):
        run("--config-file", "clip_tiny_adapt", "--output", tmp_path / "out")
