from __future__ import annotations

import numpy as np
import pytest

from ovseg import visualization as vis
from ovseg.visualization.colors import _to_lab


def lab_distance(a: np.ndarray, b: np.ndarray) -> float:
    lab = _to_lab(np.stack([a, b]))
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


def test_outlines_are_white_lines_with_smooth_sides() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    labels = np.zeros((60, 60), np.int32)
    labels[:, 30:] = 1  # the border runs at column 29
    colors = np.full((2, 3), 100, np.uint8)
    row = vis.blend(image, labels, colors)[30, :, 0].astype(int)
    assert row[29] > 240 and 100 < row[28] < 240
    assert row[28] == row[30] and row[26] < 100  # a dark rim, for light pictures
    assert (row[:20] == 100).all() and (row[40:] == 100).all()


def test_outlines_of_a_large_picture_are_wider() -> None:
    labels = np.zeros((960, 100), np.int32)
    labels[480:] = 1
    widths = []
    for part in (labels[:, :50], np.tile(labels, (1, 10))):
        grey = np.full((*part.shape, 3), 100, np.uint8)
        picture = vis.blend(grey, part, np.full((2, 3), 100, np.uint8))
        widths.append(int((picture[:, 25, 0] > 180).sum()))
    assert widths[0] <= 2 < widths[1] <= 4


def test_a_small_picture_is_enlarged_by_a_whole_number() -> None:
    image = np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8)
    labels = np.zeros((128, 160), np.int32)
    labels[:, 80:] = 3
    picture, regions = vis.for_display(image, labels)
    assert picture.shape == (512, 640, 3) and regions.dtype == np.int32
    assert (regions == np.kron(labels, np.ones((4, 4), int))).all()


def test_enlarging_rounds_corners_and_keeps_a_part_of_one_pixel() -> None:
    labels = np.zeros((120, 120), np.int32)
    labels[60, 60] = 2
    labels[np.arange(120)[:, None] + np.arange(120) > 180] = 1
    _, regions = vis.for_display(np.zeros((120, 120, 3), np.uint8), labels)
    assert (regions[240:244, 240:244] == 2).any()
    stairs = np.kron(labels, np.ones((4, 4), int)) != regions
    assert 0 < stairs.mean() < 0.02
    assert set(np.unique(regions)) == {0, 1, 2}


@pytest.mark.parametrize("size", [(480, 640), (330, 700), (3000, 4000)])
def test_a_picture_of_fair_size_is_shown_as_it_is(size: tuple[int, int]) -> None:
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32)
    picture, regions = vis.for_display(image, labels)
    assert picture is image and regions is labels


def quadrants(height: int, width: int) -> np.ndarray:
    labels = np.zeros((height, width), np.int32)
    labels[:, width // 2 :] += 1
    labels[height // 2 :] += 2
    labels[5:9, 5:9] = 4  # too small for any name
    return labels


@pytest.mark.parametrize("size", [(480, 640), (512, 512), (1333, 2000), (300, 4000)])
def test_names_lie_in_their_parts_apart_from_each_other(size: tuple[int, int]) -> None:
    labels = quadrants(*size)
    names = ["sky", "umbrella", "red star", "grass", "speck"]
    placed = vis.place_names(labels, names)
    assert {name.text for name in placed} == {"sky", "umbrella", "red star", "grass"}
    taken = np.zeros(size, int)
    for name in placed:
        x0, y0, x1, y1 = name.box
        assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]
        assert (labels[y0:y1, x0:x1] == name.label).all()
        taken[y0:y1, x0:x1] += 1
    assert taken.max() == 1
    grey = np.full((*size, 3), 128, np.uint8)
    written = (vis.write_names(grey, placed) != grey).any(-1)
    assert written.any() and not written[taken == 0].any()


def test_the_size_of_names_goes_with_the_picture() -> None:
    sizes = [
        vis.place_names(np.zeros(s, np.int32), ["sky"])[0].size for s in ((480, 640), (3000, 4000))
    ]
    assert sizes == [20, 125]


def test_a_name_is_written_into_the_largest_part_or_not_at_all() -> None:
    labels = np.zeros((480, 640), np.int32)
    labels[:, 200:204] = 1  # 1920 pixels, too thin
    labels[100:130, 400:440] = 1  # 1200, with room
    assert [name.text for name in vis.place_names(labels, ["sky", "I"])] == ["sky"]
    labels[100:160, 400:440] = 1
    [_, name] = vis.place_names(labels, ["sky", "I"])
    assert 400 <= name.box[0] < name.box[2] <= 440 and 100 <= name.box[1] < name.box[3] <= 160


def test_where_a_name_does_not_fit_smaller_letters_are_tried() -> None:
    labels = np.zeros((480, 640), np.int32)
    labels[200:226, 200:290] = 1
    [_, name] = vis.place_names(labels, ["sky", "umbrella"])
    assert name.size == 15


def test_names_are_left_out_on_request_and_for_the_background() -> None:
    labels = np.zeros((480, 640), np.int32)
    image = np.full((480, 640, 3), 90, np.uint8)
    plain = vis.overlay(image, labels, ["sky"], legend=False, tags=False)
    assert (plain == plain[0, 0]).all()
    assert (vis.overlay(image, labels, ["sky"], legend=False) != plain).any()
    assert (vis.overlay(image, labels, ["sky"], legend=False, background=0) == 90).all()


def test_long_names_are_shortened() -> None:
    [name] = vis.place_names(np.zeros((600, 2000), np.int32), ["a" * 60])
    assert name.text == "a" * 31 + "…"


def test_tiles_stand_in_rows_apart() -> None:
    pictures = [np.full((h, w, 3), v, np.uint8) for h, w, v in ((4, 6, 1), (8, 2, 2), (3, 3, 3))]
    sheet = vis.tiles(pictures, 2, gap=2)
    assert sheet.shape == (8 + 2 + 3, 6 + 2 + 2, 3)
    corners = [sheet[y, x].tolist() for y, x in ((0, 0), (0, 8), (10, 0))]
    assert corners == [[1] * 3, [2] * 3, [3] * 3]
    assert (sheet[8:10] == 250).all()


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
