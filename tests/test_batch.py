from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.batch import (
    find_images,
    output_stems,
    segment_files,
    split_names,
)
from ovseg.readers.pictures import read_image
from ovseg.segmentation import Segmentation
from ovseg.vocab import Vocabulary


def write_image(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 0).save(path)
    return path


class OneClassPredictor:
    """Gives every pixel to class 0; fails on pictures three pixels wide."""

    def segment(self, image: Path, names: Vocabulary, **_: object) -> Segmentation:
        picture = read_image(image)
        if picture.shape[1] == 3:
            raise RuntimeError("too narrow")
        return Segmentation(
            image=picture,
            labels=np.zeros(picture.shape[:2], np.int32),
            names=names.names,
            scores=np.ones(len(names), np.float32),
        )


def test_files_folders_and_patterns_are_expanded_once_each(tmp_path: Path) -> None:
    for name in ["b.png", "a.JPG", "sub/c.jpg", "[x].png"]:
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    sources = find_images(
        [tmp_path / "b.png", tmp_path, str(tmp_path / "**/*.jpg"), tmp_path / "[x].png"]
    )
    assert [s.path.name for s in sources] == ["b.png", "[x].png", "a.JPG", "c.jpg"]
    assert all(s.error is None for s in sources)


def test_inputs_without_a_file_keep_their_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sources = find_images([tmp_path / "empty", tmp_path / "gone.jpg", str(tmp_path / "*.png")])
    assert "no image files in this folder" in str(sources[0].error)
    assert [s.error for s in sources[1:]] == ["no such file", "no file matches this pattern"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png", "d/a.jpg"], ["a", "a_2", "a_3"]),
        (["a.jpg", "a.png", "a_2.jpg"], ["a", "a_3", "a_2"]),
        (["A.jpg", "a.jpg"], ["A", "a_2"]),
    ],
)
def test_results_never_share_a_name(paths: list[str], expected: list[str]) -> None:
    assert output_stems([Path(p) for p in paths]) == expected


def test_bad_files_are_reported_and_the_others_done(tmp_path: Path) -> None:
    write_image(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.jpg").write_bytes(b"not a picture")
    write_image(tmp_path / "in/c.png", size=(3, 4))
    write_image(tmp_path / "in/d.png")
    write_image(tmp_path / "other/a.png", size=(8, 4))
    sources = find_images([tmp_path / "in", tmp_path / "other", tmp_path / "gone.jpg"])
    outcomes = list(
        segment_files(OneClassPredictor(), sources, Vocabulary.make(["sky"]), tmp_path / "out")
    )
    assert [o.error is None for o in outcomes] == [True, False, False, True, True, False]
    assert "b.jpg" in str(outcomes[1].error)
    assert outcomes[2].error == "RuntimeError: too narrow"
    assert outcomes[5].error == "no such file"
    assert json.loads((tmp_path / "out/a.json").read_text())["width"] == 6
    assert json.loads((tmp_path / "out/a_2.json").read_text())["width"] == 8
    assert not list((tmp_path / "out").glob("b*"))
    assert "100.0%" in outcomes[0].describe() and "FAILED" in outcomes[1].describe()


@pytest.mark.parametrize(
    ("arguments", "names", "remarked"),
    [
        (["sky", "red star"], ["sky", "red star"], False),
        (["sky,red star, tree"], ["sky", "red star", "tree"], True),
        (["sky,", "red", "star,", "tree"], ["sky", "red star", "tree"], True),
        (["sky", "building, edifice"], ["sky", "building, edifice"], True),
        (["sky"], ["sky"], False),
    ],
)
def test_class_names_as_people_type_them(
    arguments: list[str], names: list[str], remarked: bool
) -> None:
    read, remark = split_names(arguments)
    assert read == names
    assert (remark is not None) == remarked


@pytest.mark.parametrize("word", ["photo.jpg", "photos/*.PNG", "gone/a.tif"])
def test_a_path_is_no_class_name(word: str) -> None:
    with pytest.raises(ValueError, match=r"got .*, which is a path; pictures come after --input"):
        split_names(["sky", word])


def test_a_folder_is_no_class_name_where_no_picture_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "road" / "wet").mkdir(parents=True)
    assert split_names(["sky", "road"])[0] == ["sky", "road"]
    with pytest.raises(ValueError, match="'road', which is a path"):
        split_names(["sky", "road"], has_input=False)
    with pytest.raises(ValueError, match="'road/wet', which is a path"):
        split_names(["sky", "road/wet"])


def run(folder: Path, output: Path, views: tuple[str, ...] = ("overlay", "mask", "panel")) -> list:
    vocabulary = Vocabulary.make(["sky"])
    return list(
        segment_files(OneClassPredictor(), find_images([folder]), vocabulary, output, views=views)
    )


def test_results_replace_results_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    write_image(tmp_path / "b_mask.png", size=(5, 5))  # somebody's own, and a picture itself
    (tmp_path / "a.json").write_text('{"label": "me"}')
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for views in (("overlay", "mask", "panel"), ("mask",), ("overlay",)):
        outcomes = run(tmp_path, tmp_path, views)
        assert [o.files["json"].name for o in outcomes] == [
            *("a_2.json", "b_2.json" if "mask" in views else "b.json", "b_mask.json")
        ]
    assert "a.json is no result of this package and stays as it is" in caplog.text
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_results_are_never_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "a.jpg")
    assert len(run(tmp_path, tmp_path)) == 1
    assert "left out" not in caplog.text
    names = {p.name for p in tmp_path.iterdir()}
    assert len(names) == 6
    [again] = run(tmp_path, tmp_path)
    assert again.path.name == "a.jpg" and {p.name for p in tmp_path.iterdir()} == names
    assert "a_labels.png, a_mask.png, a_overlay.jpg and 1 more" in caplog.text
    every = sorted(tmp_path.glob("*.*"))  # as a shell expands *.*
    assert [s.path.name for s in find_images([p for p in every if p.suffix != ".json"])] == [
        "a.jpg"
    ]
    [nothing] = find_images([tmp_path / "a_overlay.jpg"])
    assert nothing.error == "only results of earlier runs, no pictures to segment"


def test_a_result_is_not_saved_over_another_origin(tmp_path: Path) -> None:
    result = OneClassPredictor().segment(write_image(tmp_path / "a.jpg"), Vocabulary.make(["sky"]))
    for _ in range(2):
        result.save(tmp_path / "out")
    write_image(tmp_path / "out" / "segmentation_overlay.jpg")
    labels = (tmp_path / "out" / "segmentation_labels.png").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"segmentation_overlay.jpg: .*did not write"):
        result.save(tmp_path / "out")
    assert (tmp_path / "out" / "segmentation_labels.png").stat().st_mtime_ns == labels
