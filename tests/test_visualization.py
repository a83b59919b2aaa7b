from __future__ import annotations

import numpy as np
import pytest

from ovseg import visualization as vis


def lab_distance(a: np.ndarray, b: np.ndarray) -> float:
    lab = vis._to_lab(np.stack([a, b]))
    return float(np.linalg.norm(lab[0] - lab[1]))


def test_color_belongs_to_the_name_not_to_its_place() -> None:
    first = vis.palette(["sky", "tree", "red star"])
    second = vis.palette(["red star", "house", "sky"])
    assert (first[0] == second[2]).all()
    assert (first[2] == second[0]).all()


def test_color_ignores_case_and_spacing() -> None:
    assert (vis.palette(["Red  Star"]) == vis.palette(["red star"])).all()


def test_colors_are_the_same_in_every_process() -> None:
    assert vis.palette(["sky", "tree"]).tolist() == [[88, 145, 200], [251, 2, 168]]


def test_colors_of_twenty_names_look_different() -> None:
    names = [f"thing {i}" for i in range(20)]
    colors = vis.palette(names)
    nearest = min(lab_distance(a, b) for i, a in enumerate(colors) for b in colors[:i])
    assert nearest > 20
    assert min(lab_distance(c, np.array(vis.BACKGROUND_COLOR, np.uint8)) for c in colors) > 20


def test_names_that_differ_only_in_case_get_two_colors() -> None:
    colors = vis.palette(["Sky", "sky"])
    assert lab_distance(colors[0], colors[1]) > 20


def test_many_names_get_a_color_each() -> None:
    colors = vis.palette([f"class {i}" for i in range(300)])
    assert len({tuple(c) for c in colors.tolist()}) == 300


def test_background_is_grey() -> None:
    assert tuple(vis.palette(["sky", "others"], background=1)[1]) == vis.BACKGROUND_COLOR


def test_colorize_paints_blank_black() -> None:
    colors = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    painted = vis.colorize(np.array([[0, 1], [-1, 0]]), colors)
    assert painted.tolist() == [[[10, 20, 30], [40, 50, 60]], [[0, 0, 0], [10, 20, 30]]]


@pytest.mark.parametrize("bad", [2, -2])
def test_label_out_of_range_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=r"expected values in \[-1, 2\)"):
        vis.colorize(np.array([[bad]]), np.zeros((2, 3), np.uint8))


def test_unsigned_labels_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="astype"):
        vis.colorize(np.zeros((1, 1), np.uint8), np.zeros((2, 3), np.uint8))


def test_blend_mixes_tint_and_leaves_blank_and_background() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    colors = np.array([[200, 0, 0], [128, 128, 128]], np.uint8)
    labels = np.array([[0, 1, -1]])
    out = vis.blend(image, labels, colors, alpha=0.5, untouched=[1], outlines=False)
    assert out.tolist() == [[[150, 50, 50], [100, 100, 100], [100, 100, 100]]]


def test_blend_refuses_another_size_and_float_pictures() -> None:
    colors = np.zeros((1, 3), np.uint8)
    with pytest.raises(ValueError, match="picture's size"):
        vis.blend(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), int), colors)
    with pytest.raises(ValueError, match="uint8 RGB"):
        vis.blend(np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), int), colors)


def test_borders_mark_the_last_pixel_before_a_change() -> None:
    edge = vis.borders(np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]]))
    assert edge.astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_overlay_without_legend_keeps_the_size_and_the_inputs() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    labels = np.zeros((40, 30), np.int32)
    before = image.copy()
    out = vis.overlay(image, labels, ["sky"], legend=False)
    assert out.shape == (40, 30, 3)
    assert (image == before).all() and not (out == image).all()


def test_overlay_with_legend_enlarges_a_small_picture() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    labels = np.zeros((40, 60), np.int32)
    labels[:, 30:] = 1
    out = vis.overlay(image, labels, ["sky", "tree"])
    assert out.shape[0] == vis.MIN_SIDE
    assert out.shape[1] > vis.MIN_SIDE * 1.5


def test_overlay_of_a_long_picture_is_bounded() -> None:
    image = np.zeros((10, 9000, 3), np.uint8)
    out = vis.overlay(image, np.zeros((10, 9000), np.int32), ["sky"])
    assert vis.MAX_SIDE < out.shape[1] < vis.MAX_SIDE + 400


def test_legend_shows_the_colors_of_the_classes_found_only() -> None:
    labels = np.array([[0, 0], [0, 2]], np.int32)
    colors = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    strip = vis.legend_strip(labels, ["a", "b", "c"], colors, height=200)
    seen = {tuple(p) for p in strip.reshape(-1, 3).tolist()}
    assert (250, 0, 0) in seen and (0, 0, 250) in seen and (0, 250, 0) not in seen


def test_legend_sums_up_what_does_not_fit() -> None:
    labels = np.arange(60, dtype=np.int32).reshape(6, 10)
    colors = vis.palette([f"c{i}" for i in range(60)])
    strip = vis.legend_strip(labels, [f"c{i}" for i in range(60)], colors, height=120)
    seen = {tuple(p) for p in strip.reshape(-1, 3).tolist()}
    shown = sum(tuple(c) in seen for c in colors.tolist())
    assert strip.shape[0] == 120 and 2 <= shown <= 6


def test_legend_draws_any_alphabet() -> None:
    strip = vis.legend_strip(
        np.zeros((4, 4), np.int32), ["café 天空"], np.zeros((1, 3), np.uint8), height=90
    )
    assert strip.shape[0] == 90


def test_panels_hold_input_overlay_mask_and_legend() -> None:
    image = np.full((480, 500, 3), 77, np.uint8)
    labels = np.zeros((480, 500), np.int32)
    out = vis.panels(image, labels, ["sky"])
    color = vis.palette(["sky"])[0]
    assert (out[240, 250] == 77).all()
    assert (out[240, 500 + 4 + 250] != 77).any()
    assert (out[240, 2 * 504 + 250] == color).all()


def test_pixel_counts_leave_blank_out() -> None:
    assert vis.pixel_counts(np.array([[0, 2, 2], [-1, -1, 2]]), 4).tolist() == [1, 0, 3, 0]
