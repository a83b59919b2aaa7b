from __future__ import annotations

import pytest
import torch

from ovseg.clip.blocks import run_block
from ovseg.clip.dense import embed_patches
from ovseg.projects.corrclip import tower as tower_module
from ovseg.projects.corrclip.tower import CorrelatedTower, CorrelationSettings
from tests.projects.corrclip.tiny import tiny_clip


def crop(height: int = 32, width: int = 40) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))


def dense(height: int = 8, width: int = 10) -> torch.Tensor:
    return torch.randn(6, height, width, generator=torch.Generator().manual_seed(3))


def halves(height: int = 32, width: int = 40) -> torch.Tensor:
    ids = torch.zeros(height, width, dtype=torch.int32)
    ids[8:, : width // 2], ids[8:, width // 2 :] = 4, 9
    return ids


@torch.no_grad()
def test_patches_come_out_as_without_the_regions_tokens():
    visual = tiny_clip().visual
    tower = CorrelatedTower(visual, CorrelationSettings())
    tokens, grid = embed_patches(visual, crop(), scale_offset=0.1)
    regions = torch.zeros(grid, dtype=torch.int64)
    regions[:, 2:] = 1
    outputs, summaries, where = tower.run_blocks(tokens, regions)
    plain = tokens
    for block, output in zip(visual.transformer.resblocks, outputs, strict=False):
        plain = run_block(block, plain)
        torch.testing.assert_close(output, plain)
    assert len(outputs) == 5 and summaries.shape == (2, 32) and where.equal(regions)


@torch.no_grad()
def test_a_regions_token_sees_its_own_patches_only():
    visual = tiny_clip().visual
    tower = CorrelatedTower(visual, CorrelationSettings())
    tokens, grid = embed_patches(visual, crop(), scale_offset=0.1)
    regions = torch.zeros(grid, dtype=torch.int64)
    regions[:, 2:] = 1
    one_block = torch.nn.Module()
    one_block.transformer = torch.nn.Module()
    one_block.transformer.resblocks = visual.transformer.resblocks[:1]
    object.__setattr__(tower, "visual", one_block)
    before = tower.run_blocks(tokens, regions)[1]
    changed = tokens.clone()
    changed[:, 1:][:, regions.flatten() == 1] += torch.randn(32)
    after = tower.run_blocks(changed, regions)[1]
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3


@torch.no_grad()
def test_cells_of_a_region_change_nothing_in_another_ones_values():
    visual = tiny_clip().visual
    settings = CorrelationSettings(merge=False, semantic_weight=0.0)
    tower = CorrelatedTower(visual, settings)
    seen = []
    mix = tower_module.mix_values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tower_module, "mix_values", lambda *args: seen.append(args[2]) or mix(*args))
        features = tower(crop(), dense(), halves())
    assert features.shape == (24, 8, 10)
    left, right = torch.zeros(8, 10, dtype=torch.bool), torch.zeros(8, 10, dtype=torch.bool)
    left[2:, :5], right[2:, 5:] = True, True
    attention = seen[0]
    assert (attention[left.flatten()][:, right.flatten()] == 0).all()
    torch.testing.assert_close(attention.sum(1), torch.ones(80))


@torch.no_grad()
def test_weights_of_the_branches_and_their_own_normalisation():
    visual = tiny_clip().visual
    parts = [torch.randn(5, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    fuse = CorrelatedTower(visual, CorrelationSettings()).fuse
    main, spatial, semantic = (visual.ln_post(part) @ visual.proj for part in parts)
    torch.testing.assert_close(fuse(*parts), main + spatial + 0.5 * semantic)
    settings = CorrelationSettings(spatial_weight=2.0, semantic_weight=0.0)
    fused = CorrelatedTower(visual, settings).fuse(*parts)
    torch.testing.assert_close(fused, main + 2 * spatial)


@pytest.mark.parametrize(
    ("layers", "number", "blocks"),
    [(6, None, (2, 4)), (12, None, (5, 10)), (24, None, (10, 22)), (4, 1, (1, 2)), (4, 2, (0, 2))],
)
def test_the_spatial_branch_ends_two_blocks_before_the_last(layers, number, blocks):
    visual = tiny_clip(layers=layers).visual
    assert CorrelatedTower(visual, CorrelationSettings(num_spatial=number)).spatial_blocks == blocks


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"expected 1 to 2 blocks for a tower of 4, got 0"):
        CorrelatedTower(tiny_clip(layers=4).visual, CorrelationSettings())
    with pytest.raises(ValueError, match="expected 1 to 4 blocks for a tower of 6, got 5"):
        CorrelatedTower(tiny_clip().visual, CorrelationSettings(num_spatial=5))
    with pytest.raises(ValueError, match=r"MODEL.CORRCLIP.UNCOVERED: expected one of"):
        CorrelationSettings(uncovered="some")
    visual = tiny_clip().visual
    visual.pool_type = "avg"
    with pytest.raises(ValueError, match="pools by its class token"):
        CorrelatedTower(visual, CorrelationSettings())
