from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ovseg.config import load_cfg
from ovseg.projects.corrclip.regions import build_regions
from ovseg.projects.corrclip.regions.panoptic import PanopticRegions
from ovseg.projects.corrclip.regions.sam2 import Sam2Regions

transformers = pytest.importorskip("transformers")


def picture(height=40, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def config(*opts):
    return load_cfg("corrclip_vitB", ["MODEL.DEVICE", "cpu", *opts])


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


# -- SAM 2 ------------------------------------------------------------------------------------

SIDE = 64


def tiny_sam2():
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        window_positional_embedding_background_size=[2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 2, 2],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompt = transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE)
    decoder = transformers.Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
    )
    made = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return seeded(lambda: transformers.Sam2Model(made))


def sam2_processor():
    return transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})


class DrawnSam2(nn.Module):
    """Answers a point with a disc around it; the scores say how far right the point is."""

    def __init__(self, radius=6.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.mask_decoder = nn.Module()
        self.radius = radius
        self.asked = []

    def get_image_embeddings(self, pixels):
        assert pixels.shape == (1, 3, SIDE, SIDE)
        return [pixels]

    def forward(self, image_embeddings, input_points, input_labels, multimask_output):
        self.asked.append(input_points[0, :, 0])
        x, y = input_points[0, :, 0].unbind(1)
        rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        distance = ((columns * 4 + 2 - x[:, None, None]) ** 2).add(
            (rows * 4 + 2 - y[:, None, None]) ** 2
        )
        logits = (self.radius - distance.sqrt())[None, :, None]  # (1, P, 1, 16, 16)
        return SimpleNamespace(pred_masks=logits, iou_scores=(x / SIDE)[None, :, None])


def drawn(**settings):
    model = DrawnSam2()
    chosen = {"points_per_side": 4, "pred_iou": 0.3, "stability": 0.0} | settings
    return Sam2Regions(model=model, processor=sam2_processor(), name="drawn", **chosen)


def test_points_lie_evenly_over_pictures_of_any_shape():
    source = drawn(points_per_batch=7)
    source(picture(20, 80), "")

    assert [len(points) for points in source.model.asked] == [7, 7, 2]
    points = torch.cat(source.model.asked)
    assert sorted({float(x) for x in points[:, 0]}) == [8, 24, 40, 56]
    assert sorted({float(y) for y in points[:, 1]}) == [8, 24, 40, 56]


def test_masks_of_poor_quality_are_dropped_and_the_others_come_at_the_pictures_size():
    masks = drawn().masks(picture())

    assert masks.shape == (12, 40, 64) and masks.dtype == bool  # of 16, the left column is out
    assert not masks[:, :, :12].any()
    assert masks[0, 5, 56] and masks[-1, 35, 24]  # the best first


def test_unstable_masks_are_dropped():
    assert len(drawn(stability=0.0).masks(picture())) == 12
    # Discs of radius 6 -+ 1: (5 / 7)^2 of the area is left, on a coarse grid somewhat less.
    assert len(drawn(stability=0.2).masks(picture())) == 12
    assert len(drawn(stability=0.8).masks(picture())) == 0


def test_of_masks_on_one_place_the_best_stays():
    source = drawn(nms=0.7)
    source.model.radius = 200.0  # every point gets the whole picture

    assert len(source.masks(picture())) == 1
    assert np.unique(source(picture(), "")).tolist() == [1]


def test_a_picture_without_good_masks_is_one_void():
    source = drawn(pred_iou=2.0)

    assert source.masks(picture()).shape == (0, 40, 64) and not source(picture(), "").any()


def test_a_sam2_of_transformers_gives_regions_and_keeps_to_single_masks():
    model = tiny_sam2()
    settings = {"points_per_side": 3, "pred_iou": -1e9, "stability": -1.0, "nms": 1.0}
    source = Sam2Regions(model=model, processor=sam2_processor(), name="tiny", **settings)
    regions = source(picture(), "")

    assert regions.shape == (40, 64) and regions.dtype == np.int32
    assert not model.mask_decoder.dynamic_multimask_via_stability
    assert np.array_equal(regions, source(picture(), ""))
    single = len(source.masks(picture()))
    assert 0 < single <= 9
    source.multimask = True
    assert single < len(source.masks(picture())) <= 27


def test_sam2_says_its_settings_in_its_name():
    source = drawn(multimask=True, dynamic_multimask=True)

    assert source.name == (
        "drawn 4x4 points, iou 0.3, stability 0 (offset 1, cut 0), nms 0.7, 3 masks a point, "
        "dynamic"
    )
    with pytest.raises(ValueError, match="at least 1 point per side"):
        drawn(points_per_side=0)


def test_sam2_is_built_from_a_folder_with_upstreams_settings(tmp_path):
    tiny_sam2().save_pretrained(tmp_path / "tiny-sam2")
    sam2_processor().save_pretrained(tmp_path / "tiny-sam2")
    weights = ("MODEL.CORRCLIP.REGIONS.SAM2.WEIGHTS", str(tmp_path / "tiny-sam2"))
    source = build_regions(config("MODEL.CORRCLIP.REGIONS.NAME", "sam2", *weights))

    assert source.name.startswith("sam2:tiny-sam2@")
    assert source.name.endswith(" 8x8 points, iou 0.4, stability 0.4 (offset 1, cut 0), nms 0.7")
    assert source(picture(), "").shape == (40, 64)


# -- panoptic models --------------------------------------------------------------------------


def tiny_mask2former():
    swin = transformers.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    made = transformers.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=3,
    )
    return seeded(lambda: transformers.Mask2FormerForUniversalSegmentation(made))


def mask2former_processor():
    return transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64})


def tiny_eomt():
    made = transformers.EomtConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_queries=6,
        num_labels=3,
        mlp_ratio=2,
    )
    return seeded(lambda: transformers.EomtForUniversalSegmentation(made))


def eomt_processor():
    size = {"shortest_edge": 64, "longest_edge": 64}
    return transformers.EomtImageProcessor(size=size, do_pad=True)


class Segments:
    """A processor that has found these segments."""

    def __init__(self, ids):
        self.ids = torch.tensor(ids)

    def __call__(self, images, return_tensors):
        return {"pixel_values": torch.zeros(1, 3, 4, 4)}

    def post_process_panoptic_segmentation(self, outputs, **options):
        self.options = options
        found = [int(one) for one in self.ids.unique() if one >= self.first]
        return [{"segmentation": self.ids, "segments_info": [{"id": one} for one in found]}]


class Answers(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values):
        return SimpleNamespace(
            masks_queries_logits=torch.zeros(1), class_queries_logits=torch.zeros(1)
        )


@pytest.mark.parametrize(
    ("first", "ids", "expected"),
    [
        (1, [[0, 1], [2, 2]], [[0, 1], [2, 2]]),  # Mask2Former: 0 is void
        (0, [[-1, 0], [1, 1]], [[0, 1], [2, 2]]),  # EoMT: -1 is void
        (0, [[0.0, 0.0], [1.0, 1.0]], [[1, 1], [2, 2]]),  # and may not be there
        (0, [[-1.0, -1.0]], [[0, 0]]),  # no segment at all
    ],
)
def test_segments_count_from_1_whatever_the_model_counts_from(first, ids, expected):
    processor = Segments(ids)
    processor.first = first
    source = PanopticRegions(model=Answers(), processor=processor, name="x", threshold=0.7)
    regions = source(np.zeros((2, 2, 3), np.uint8), "")

    assert regions.dtype == np.int32 and regions.tolist() == expected
    assert processor.options["threshold"] == 0.7
    assert processor.options["target_sizes"] == [(2, 2)]


@pytest.mark.parametrize(
    ("model", "processor"),
    [(tiny_mask2former, mask2former_processor), (tiny_eomt, eomt_processor)],
)
def test_panoptic_models_of_transformers_give_regions_at_the_size_of_the_picture(model, processor):
    limits = {"threshold": 0.0, "mask_threshold": 0.0, "overlap": 0.0}
    source = PanopticRegions(model=model(), processor=processor(), name="tiny", **limits)
    regions = source(picture(), "")

    assert regions.shape == (40, 64) and regions.dtype == np.int32
    assert regions.min() >= 0 and regions.max() >= 1
    strict = PanopticRegions(model=model(), processor=processor(), name="tiny", threshold=1.0)
    assert not strict(picture(), "").any()


@pytest.mark.parametrize(
    ("name", "model", "processor", "limits"),
    [
        ("mask2former", tiny_mask2former, mask2former_processor, "threshold 0.5"),
        ("eomt", tiny_eomt, eomt_processor, "threshold 0.8"),
    ],
)
def test_panoptic_models_are_built_from_a_folder(tmp_path, name, model, processor, limits):
    model().save_pretrained(tmp_path / "tiny")
    processor().save_pretrained(tmp_path / "tiny")
    weights = (f"MODEL.CORRCLIP.REGIONS.{name.upper()}.WEIGHTS", str(tmp_path / "tiny"))
    cfg = config("MODEL.CORRCLIP.REGIONS.NAME", name, *weights)
    source = build_regions(cfg)

    assert source.name.startswith(f"{name}:tiny@")
    assert source.name.endswith(f" {limits}, mask 0.5, overlap 0.8")
    assert source(picture(), "").shape == (40, 64)


def test_an_unknown_precision_is_refused():
    cfg = config("MODEL.CORRCLIP.REGIONS.NAME", "eomt", "MODEL.CORRCLIP.REGIONS.PRECISION", "int8")

    with pytest.raises(ValueError, match=r"REGIONS\.PRECISION: expected one of .* got 'int8'"):
        build_regions(cfg)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(ImportError, match=r"pip install 'ovseg\[transformers\]'"):
        build_regions(config("MODEL.CORRCLIP.REGIONS.NAME", "sam2"))
