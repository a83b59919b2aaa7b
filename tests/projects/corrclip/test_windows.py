from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.projects.corrclip.windows import Window, average_windows, plan_windows


def test_windows_cover_the_picture_and_the_last_is_shifted_back_inside():
    windows = plan_windows(40, 70, crop=32, stride=16)
    assert [(w.top, w.left) for w in windows] == [
        (0, 0), (0, 16), (0, 32), (0, 38), (8, 0), (8, 16), (8, 32), (8, 38)
    ]  # fmt: skip
    assert all(window.size == (32, 32) for window in windows)


def test_a_small_picture_is_one_window_padded_evenly():
    [window] = plan_windows(27, 32, crop=32, stride=16, pad_multiple=8)
    assert window == Window(0, 0, 27, 32, 2, 0, 3, 0)
    maps = torch.arange(27.0)[:, None].expand(27, 32)[None] + 1
    cut = window.cut(maps, value=-1.0)
    assert cut.shape == (1, 32, 32) and (cut[:, :2] == -1).all() and (cut[:, 29:] == -1).all()
    assert window.unpad(cut).equal(maps)


def test_windows_are_averaged_by_how_often_a_pixel_is_visited():
    windows = plan_windows(8, 12, crop=8, stride=4)
    picture = torch.randn(3, 8, 12)
    cuts = [window.cut(picture) for window in windows]
    torch.testing.assert_close(average_windows(windows, cuts, (8, 12)), picture)
    ones = [torch.full((1, 2, 2), float(i)) for i in range(2)]
    averaged = average_windows(windows, ones, (8, 12))
    assert averaged[0, 0].tolist() == [0] * 4 + [0.5] * 4 + [1] * 4


def test_padding_takes_no_part_in_the_average():
    [window] = plan_windows(5, 8, crop=8, stride=8, pad_multiple=8)
    maps = window.cut(torch.randn(2, 5, 8), value=100.0)
    assert average_windows([window], [maps], (5, 8)).max() < 50


@pytest.mark.parametrize("size", [(40, 70), (27, 45)])
def test_sampling_a_window_is_resizing_cutting_and_padding_by_the_edge(size):
    features = torch.randn(4, 9, 11, generator=torch.Generator().manual_seed(0))
    resized = F.interpolate(features[None], size=size, mode="bilinear", align_corners=False)
    unit = F.normalize(resized, dim=1)
    for window in plan_windows(*size, crop=32, stride=16, pad_multiple=8):
        inside = unit[..., window.top : window.bottom, window.left : window.right]
        sides = (window.pad_left, window.pad_right, window.pad_top, window.pad_bottom)
        padded = F.pad(inside, sides, mode="replicate")
        wanted = F.interpolate(padded, size=(8, 8), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(window.sample(features, size, (8, 8)), wanted)


def test_a_stride_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"WINDOW.STRIDE: expected at least 1, got 0"):
        plan_windows(8, 8, crop=8, stride=0)
