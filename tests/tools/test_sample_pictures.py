from __future__ import annotations

from pathlib import Path

from ovseg.readers.pictures import read_image
from tests.helpers import ROOT, run_python


def test_it_writes_the_scenes_and_one_picture_of_them(tmp_path: Path) -> None:
    options = ("--weights", "random", "--config-file", "ovseg_tiny", "--count", "1", "--truth")
    places = ("--samples", str(tmp_path / "samples"), "--picture", str(tmp_path / "a" / "all.jpg"))
    run = run_python(str(ROOT / "tools" / "sample_pictures.py"), *options, *places)

    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "samples").glob("scene_*.jpg"))) == 1
    assert run.stdout.count("its captions mention: [") == 1
    height, width, _ = read_image(tmp_path / "a" / "all.jpg").shape
    assert height >= 512 and width > 2 * 512  # the truth is beside it
