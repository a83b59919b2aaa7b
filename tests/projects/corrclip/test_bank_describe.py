from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ovseg.projects.corrclip.bank import MemoryBank
from ovseg.projects.corrclip.bank.build import build_memory_bank
from ovseg.projects.corrclip.bank.describe import ModelChoice, parts_maker
from ovseg.projects.corrclip.correlation import resize_ids
from ovseg.projects.corrclip.sources import open_pictures
from ovseg.utils.resizing import resize
from tests.helpers import ROOT
from tests.projects.corrclip.toy_bank import write_pictures

SMALL = (
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", "ovseg-tiny"),
    *("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "ovseg_tiny"),
    *("MODEL.CORRCLIP.NUM_SPATIAL", 2),
    *("MODEL.CORRCLIP.WINDOW.CROP", 48, "MODEL.CORRCLIP.WINDOW.STRIDE", 24),
    *("MODEL.CORRCLIP.WINDOW.PAD_MULTIPLE", 8),
    *("MODEL.CORRCLIP.DENSE.NAME", "clip"),
    *("MODEL.CORRCLIP.REGIONS.NAME", "grid"),
    *("MODEL.CORRCLIP.REGIONS.GRID.ROWS", 2, "MODEL.CORRCLIP.REGIONS.GRID.COLS", 2),
)


def choice(**changes):
    return ModelChoice("corrclip_vitB", short=48, opts=SMALL, **changes)


@pytest.fixture(scope="module")
def parts():
    return parts_maker(choice())()


def picture(height=40, width=56):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return np.kron(image, np.ones((height // 4, width // 5 + 1, 1), np.uint8))[:, :width]


def test_values_are_unit_rows_and_keys_means_over_regions(parts):
    image, describer = picture(), parts.describer
    regions = parts.regions(image, "").copy()
    regions[:, :10] = 0

    keys, values = describer(image, regions)

    assert describer.encoders == ("ovseg-tiny",) and set(values) == {"ovseg-tiny"}
    assert keys.shape[0] == values["ovseg-tiny"].shape[0] == 4
    assert values["ovseg-tiny"].shape[1] == 64
    assert np.allclose(np.linalg.norm(values["ovseg-tiny"], axis=1), 1, atol=1e-5)
    # By hand: the dense map at the picture's size, unit vectors, averaged.
    dense = describer.keys.vision_features(image)[None]
    dense = F.normalize(F.interpolate(dense, size=image.shape[:2], mode="bilinear"), dim=1)[0]
    by_hand = [dense[:, torch.from_numpy(regions == one)].mean(1).numpy() for one in (1, 2, 3, 4)]
    assert np.allclose(keys, np.stack(by_hand), atol=1e-5)


def test_values_are_means_of_the_rebuilt_features_at_the_size_of_the_picture(parts):
    image, describer = picture(), parts.describer  # shorter side 40, resized to 48
    regions = parts.regions(image, "")
    model = describer.keys
    small = torch.from_numpy(resize(image, (48, 67)).copy()).permute(2, 0, 1).float()
    features = model.clip_features(small, resize_ids(torch.from_numpy(regions), (48, 67)))
    large = F.interpolate(features[None], size=image.shape[:2], mode="bilinear")[0]

    values = describer(image, regions)[1]["ovseg-tiny"]

    for one in (1, 2, 3, 4):
        mean = large[:, torch.from_numpy(regions == one)].mean(1)
        assert np.allclose(values[one - 1], F.normalize(mean, dim=0).numpy(), atol=1e-4)


def test_a_bank_of_a_real_model_finds_its_own_regions(tmp_path):
    source = write_pictures(tmp_path / "world", 3)
    build_memory_bank(
        open_pictures(str(source)), tmp_path / "bank", make_parts=parts_maker(choice())
    )

    bank = MemoryBank.load(tmp_path / "bank")
    image = np.array(Image.open(source / "07.png"))
    parts = parts_maker(choice())()
    keys, values = parts.describer(image, parts.regions(image, "07"))
    found = bank.search(F.normalize(torch.from_numpy(keys), dim=1).numpy(), 1)
    assert found[:, 0].tolist() == [4, 5, 6, 7]
    assert np.allclose(bank.values("ovseg-tiny")[4:8], values["ovseg-tiny"], atol=1e-3)


def test_a_bank_takes_values_of_several_clips_under_names_of_their_own(parts):
    both = parts_maker(choice(further=("again=corrclip_vitB",)))().describer
    image = picture()
    regions = parts.regions(image, "")

    assert both.encoders == ("ovseg-tiny", "again")
    values = both(image, regions)[1]
    assert np.array_equal(values["again"], parts.describer(image, regions)[1]["ovseg-tiny"])
    with pytest.raises(ValueError, match=r"a new name for this encoder, got 'ovseg-tiny' again"):
        parts_maker(choice(further=("corrclip_vitB",)))()


def test_what_the_vectors_depend_on_is_recorded(parts):
    facts = parts.describer.settings

    assert facts["short"] == 48 and len(facts["values"]["ovseg-tiny"]["weights"]) == 64
    assert facts["keys"]["DENSE"]["NAME"] == "clip" and "WEIGHTS" not in facts["keys"]["DENSE"]


def test_only_corrclips_describe_regions():
    with pytest.raises(ValueError, match="ovseg_tiny: expected a CorrCLIP, got OVSeg"):
        parts_maker(ModelChoice("ovseg_tiny"))()


def test_the_command_builds_what_the_config_says(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "build_memory_bank.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    source = write_pictures(tmp_path / "world", 2)
    arguments = ["--config-file", "corrclip_vitB", "--source", str(source), "--short", "48"]
    arguments += ["--output", str(tmp_path / "bank"), *map(str, SMALL)]

    assert tool.main(tool.make_parser().parse_args(arguments)) == 0

    assert '"regions": 8,' in capsys.readouterr().out
    assert len(MemoryBank.load(tmp_path / "bank")) == 8
