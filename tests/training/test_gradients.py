from __future__ import annotations

import pytest
import torch

from tests.helpers import run_two_processes
from tests.training.tiny_ovseg import gradients, scenes, small_cfg, small_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gradients and losses of one process with the whole batch."""
    return gradients(small_cfg(tmp_path_factory.mktemp("whole")))


def relative_difference(found, expected):
    assert found.keys() == expected.keys()
    difference = sum(float((found[n] - expected[n]).double().square().sum()) for n in expected)
    return (difference / sum(float(g.double().square().sum()) for g in expected.values())) ** 0.5


def test_every_trainable_parameter_has_a_gradient_and_clip_has_none(tmp_path, whole):
    found, _ = whole
    assert all(gradient is not None for gradient in found.values())
    assert "clip_adapter.non_object_embedding" in found
    assert not any(".clip_model." in name for name in found)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_with_unequal_mask_counts_add_up_to_the_batch(tmp_path, whole, parts):
    # With 4 parts, one has no mask at all.
    found, losses = gradients(small_cfg(tmp_path, "SOLVER.ACCUMULATION_STEPS", parts))
    assert relative_difference(found, whole[0]) < 2e-6
    assert losses == pytest.approx(whole[1], rel=1e-5)


def test_two_processes_with_two_micro_batches_reach_the_gradients_of_one_with_all(tmp_path, whole):
    command = (
        "-m",
        "tests.training.tiny_ovseg",
        "--num-gpus",
        "0",
        "SOLVER.ACCUMULATION_STEPS",
        "2",
    )
    run_two_processes(*command, TINY_OUTPUT=str(tmp_path))
    step = torch.load(tmp_path / "step.pth", weights_only=True)
    assert relative_difference(step["gradients"], whole[0]) < 2e-6
    assert step["losses"] == pytest.approx(whole[1], rel=1e-5)


def test_weights_of_micro_batches_count_masks_and_queries(tmp_path):
    model = small_model(small_cfg(tmp_path))
    weights = model.micro_batch_weights([scenes()[:1], scenes()[1:3], scenes()[3:]])
    assert [w["loss_mask"] for w in weights] == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    # 7 queries per image; unmatched ones weigh 0.1.
    classes = [3 + 0.4, 1 + 1.3, 2 + 0.5]
    assert [w["loss_ce"] for w in weights] == pytest.approx([c / sum(classes) for c in classes])
