from __future__ import annotations

import pytest
import torch

from ovseg.benchmark.ways import EXACT, REFERENCE, read_ways, share_weights
from tests.modeling.tiny import tiny_model


def test_the_reference_comes_first_and_a_file_adds_ways(tmp_path):
    assert read_ways() == [REFERENCE, EXACT]
    file = tmp_path / "ways.yaml"
    file.write_text(
        "- {title: small, opts: [MODEL.CLIP_ADAPTER.CHUNK_SIZE, 8]}\n"
        "- {title: texts alone, without: [blocks]}\n"
    )
    [_, _, small, texts] = read_ways(file)
    assert small.opts == ("MODEL.CLIP_ADAPTER.CHUNK_SIZE", "8") and not small.without
    assert texts.without == ("blocks",)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{opts: []}", "expected a mapping with title"),
        ("{title: a, speed: 3}", "nothing but title, opts, without"),
        ("{title: exact}", "got twice: exact"),
        ("{title: a, opts: [KEY]}", "expected KEY VALUE pairs, got KEY"),
        ("{title: a, without: [tricks]}", "expected savings of texts, blocks, got tricks"),
    ],
)
def test_other_files_are_told(tmp_path, row, told):
    file = tmp_path / "ways.yaml"
    file.write_text(f"- {row}\n")
    with pytest.raises(ValueError, match=told):
        read_ways(file)


def test_equal_weights_are_held_once_and_others_stay():
    first, second = tiny_model(), tiny_model(MODEL__MASK_FORMER__NUM_OBJECT_QUERIES=5)
    second.load_state_dict(
        {name: value for name, value in first.state_dict().items() if "query_embed" not in name},
        strict=False,
    )
    second.backbone.bfloat16()
    with torch.no_grad():
        second.clip_adapter.non_object_embedding += 1
    share_weights(second, [first])
    ours, theirs = dict(second.named_parameters()), dict(first.named_parameters())
    own = {name for name in ours if ours[name].data_ptr() != theirs[name].data_ptr()}
    assert {name for name in own if not name.startswith("backbone.")} == {
        "clip_adapter.non_object_embedding",
        "sem_seg_head.predictor.query_embed.weight",
    }
    assert {name for name in ours if name.startswith("backbone.")} <= own
    assert next(second.backbone.parameters()).dtype == torch.bfloat16
