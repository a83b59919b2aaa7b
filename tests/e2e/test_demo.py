"""demo/demo.py from the command line, on every kind of picture."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import ovseg
from ovseg.readers.pictures import read_image
from ovseg.tinyscapes import SAMPLE_SPLIT, mentioned_classes, render_scene, sample_scenes

ROOT = Path(ovseg.__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "demo.py"
BUNDLED = ROOT / "ovseg" / "assets" / "ovseg_tiny.safetensors"
TINY = ["--weights", "random", "--config-file", "ovseg_tiny", "--device", "cpu"]

needs_bundled_weights = pytest.mark.skipif(
    not BUNDLED.exists(), reason=f"the bundled weights are not built ({BUNDLED.name}: make tiny)"
)


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_script", DEMO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one picture of every kind that people have."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(rgb).save(folder / "plain.jpg")
    turned = Image.fromarray(rgb)
    exif = turned.getexif()
    exif[0x0112] = 6  # held upright: shown 40 wide, 60 high
    turned.save(folder / "turned.jpg", exif=exif)
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (40, 60, 4), np.uint8)).save(folder / "rgba.png")
    Image.fromarray(rng.integers(0, 65536, (40, 60)).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(rgb).convert("P").save(folder / "palette.gif")
    Image.fromarray(rgb).convert("CMYK").save(folder / "print.tif")
    Image.fromarray(rgb[:1, :1]).save(folder / "dot.png")
    Image.fromarray(np.tile(rgb[:8], (1, 60, 1))).save(folder / "long.png")  # 3600 x 8
    return folder


def test_every_kind_of_picture_is_segmented(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--input", str(pictures), "--class-names", "sky", "red star", "tree"]
    assert demo.main([*arguments, "--output", str(out), *TINY]) == 0
    sizes = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert len(sizes) == 9
    assert (sizes["turned"]["height"], sizes["turned"]["width"]) == (60, 40)
    assert (sizes["long"]["height"], sizes["long"]["width"]) == (8, 3600)
    for stem, described in sizes.items():
        labels = np.asarray(Image.open(out / f"{stem}_labels.png"))
        assert labels.dtype == np.uint8
        assert labels.shape == (described["height"], described["width"])
        for entry in described["classes"]:
            decoded = coco_mask.decode(entry["segmentation"]).astype(bool)
            assert (decoded == (labels == entry["category_id"])).all()
        assert described["names"] == ["sky", "red star", "tree"]
        assert described["provenance"]["weights"]["name"] == "random"
        assert Image.open(out / f"{stem}_overlay.jpg").size[1] >= 8
    printed = capsys.readouterr().out
    assert "[9/9]" in printed and "weights: random" in printed and "backend:" in printed


def test_bad_pictures_do_not_stop_the_good_ones(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.jpg").write_bytes((pictures / "plain.jpg").read_bytes()[:200])
    inputs = [pictures / "broken.jpg", pictures / "gone.jpg", pictures / "plain.jpg"]
    arguments = ["--input", *map(str, inputs), "--class-names", "sky,tree"]
    assert demo.main([*arguments, "--output", str(tmp_path / "out"), *TINY]) == 1
    captured = capsys.readouterr()
    assert "1 of 3 segmented" in captured.out
    assert "broken.jpg" in captured.err and "gone.jpg: no such file" in captured.err
    assert json.loads((tmp_path / "out/plain.json").read_text())["names"] == ["sky", "tree"]


def test_a_forgotten_input_and_two_models_are_told(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert demo.main(["--class-names", "sky", str(pictures / "plain.jpg"), *out]) == 2
    assert "plain.jpg', which is a path; pictures come after --input" in capsys.readouterr().err
    settings = ["--opts", "MODEL.WEIGHTS", str(tmp_path / "mine.pth")]
    assert demo.main(["--class-names", "sky", *out, *settings]) == 2
    assert "mine.pth' was trained with, got none" in capsys.readouterr().err
    assert demo.main(["--class-names", "sky", *out, "--weights", "ovseg_tiny", *settings]) == 2
    assert "expected one model, got 'ovseg_tiny' and MODEL.WEIGHTS" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_same_stem_in_two_folders_gives_two_results(
    demo: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    Image.new("RGB", (16, 12)).save(tmp_path / "more/plain.png")
    inputs = [str(pictures / "plain.jpg"), str(tmp_path / "more" / "*.png")]
    out = tmp_path / "out"
    arguments = ["--input", *inputs, "--class-names", "sky", "--vis", "overlay,mask,panel"]
    assert demo.main([*arguments, "--output", str(out), *TINY]) == 0
    widths = {p.name: json.loads(p.read_text())["width"] for p in out.glob("*.json")}
    assert widths == {"plain.json": 60, "plain_2.json": 16}
    assert len(list(out.iterdir())) == 10


def test_vocabulary_of_a_benchmark_and_background(
    demo: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["--input", str(pictures / "plain.jpg"), "--vocabulary", "pascal_voc_20"]
    arguments += ["--background", "others", "--proposals", "--output", str(tmp_path / "out")]
    templates = ["--opts", "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined"]
    assert demo.main([*arguments, *TINY, *templates]) == 0
    described = json.loads((tmp_path / "out/plain.json").read_text())
    assert len(described["names"]) == 21 and described["background"] == 20
    assert described["provenance"]["templates"] == 1
    assert isinstance(described["proposals"], list)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "x.jpg"], "name what to look for"),
        (["--class-names", "sky", "--vis", "3d"], "expected some of"),
        (["--vocabulary", "ade", *TINY], "valid: ade20k_150"),
        (["--class-names", "sky", "sky", *TINY], "unique class names"),
        (["--class-file", "nowhere.txt"], "nowhere.txt"),
        (["--class-names", "sky", "--config-file", "ovseg_giant"], "shipped: "),
        (["--class-names", "sky", *TINY, "--opts", "MODEL.NOTHING", "1"], "MODEL.NOTHING"),
        (["--class-names", "sky", "--weights", "nowhere.pth"], "config"),
    ],
)
def test_wrong_arguments_are_explained(
    demo: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo.main([*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo.py: error: ") and message in error


@needs_bundled_weights
def test_demo_runs_from_any_directory_with_the_bundled_weights(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DEMO), "--device", "cpu"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    samples = list((ROOT / "demo" / "samples").glob("*.jpg"))
    assert samples and f"{len(samples)} of {len(samples)} segmented" in done.stdout
    assert "ovseg_tiny.safetensors" in done.stdout and "sha256" in done.stdout
    for sample in samples:
        described = json.loads((tmp_path / "out" / f"{sample.stem}.json").read_text())
        assert described["classes"], sample.name
        assert (tmp_path / "out" / f"{sample.stem}_overlay.jpg").exists()


@needs_bundled_weights
def test_five_lines_of_python(tmp_path: Path) -> None:
    sample = sorted((ROOT / "demo" / "samples").glob("*.jpg"))[0]
    result = ovseg.load("ovseg_tiny", device="cpu").segment(sample, ["sky", "road"])
    assert result.labels.shape == result.image.shape[:2]
    assert {area.name for area in result.areas()} <= {"sky", "road"}
    assert result.provenance["weights"]["sha256"]


def test_the_size_of_specks_reaches_the_predictor_and_is_zero_by_default(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", str(pictures / "dot.png"), "--class-names", "sky"]
    for area in (0, 9):
        out = tmp_path / str(area)
        options = ["--min-region-area", str(area)] if area else []
        assert demo.main([*arguments, *options, "--output", str(out), *TINY]) == 0
        described = json.loads((out / "dot.json").read_text())
        assert described["provenance"]["min_region_area"] == area
    with pytest.raises(SystemExit, match="2"):
        demo.main([*arguments, "--min-region-area", "-3"])
    assert "expected a number of pixels, got -3" in capsys.readouterr().err


def test_samples_are_the_scenes_drawn_by_lot() -> None:
    samples = sorted((ROOT / "demo" / "samples").iterdir())
    assert [sample.name for sample in samples] == [f"scene_{n:04d}.jpg" for n in sample_scenes()]
    for sample, number in zip(samples, sample_scenes(), strict=True):
        scene = render_scene(SAMPLE_SPLIT, number)
        difference = np.abs(read_image(sample).astype(int) - scene.image).mean()
        assert difference < 12, f"{sample.name} is another scene; run tools/sample_pictures.py"


def test_readmes_example_asks_for_what_the_first_samples_captions_mention() -> None:
    first = sample_scenes()[0]
    words = mentioned_classes(render_scene(SAMPLE_SPLIT, first).captions)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = ", ".join(f'"{word}"' for word in words)
    assert f"words = [{quoted}]\n" in readme
    assert set(re.findall(r'render_scene\("test", (\d+)\)', readme)) == {str(first)}


def test_results_are_exported_for_other_tools(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    files = [str(pictures / name) for name in ("plain.jpg", "turned.jpg", "grey.png")]
    arguments = ["--input", *files, "--class-names", "sky", "tree", "--output", str(out), *TINY]
    for _ in range(2):  # a second run replaces its own files
        assert demo.main([*arguments, "--export", "coco,yolo"]) == 0
    coco = COCO(str(out / "coco" / "annotations.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.asarray(Image.open(out / f"{Path(image['file_name']).stem}_labels.png"))
        assert labels.shape == (image["height"], image["width"])
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            own = labels == annotation["category_id"] - 1
            assert (coco.annToMask(annotation).astype(bool) == own).all()
    assert len(coco.imgs) == len(list((out / "yolo" / "labels").iterdir())) == 3
    assert f"coco: {out / 'coco' / 'annotations.json'}" in capsys.readouterr().out
    assert demo.main([*arguments, "--export", "voc"]) == 2
    assert "expected some of ['coco', 'yolo'" in capsys.readouterr().err


def test_a_threshold_and_a_benchmarks_name_among_the_class_names(
    demo: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", str(pictures / "plain.jpg"), "--output", str(tmp_path), *TINY]
    assert demo.main([*arguments, "--class-names", "pascal_voc_20", "--threshold", "1"]) == 0
    described = json.loads((tmp_path / "plain.json").read_text())
    assert len(described["names"]) == 20 and described["unlabelled_pixels"] == 40 * 60
    with pytest.raises(SystemExit, match="2"):
        demo.main([*arguments, "--class-names", "sky", "--threshold", "40"])
    assert "--threshold: expected a score from 0 to 1, got 40" in capsys.readouterr().err


def test_a_batch_with_hostile_pictures_and_odd_names_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    odd = os.fsdecode(b"caf\xe9.png")
    for name in (odd, "plain.png"):
        Image.new("RGB", (40, 30), (90, 160, 70)).save(folder / name)
    (folder / "photo.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    os.mkfifo(folder / "pipe.png")
    arguments = ["--input", str(folder), "--class-names", "sky", "tree", "--export", "cvat"]
    run = subprocess.run(
        [sys.executable, str(DEMO), *arguments, "--output", str(tmp_path / "out"), *TINY],
        capture_output=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert run.returncode == 1
    assert b"Traceback" not in run.stdout + run.stderr
    assert b"regular file" in run.stdout + run.stderr
    assert b"not an image" in run.stdout + run.stderr
    described = json.loads((tmp_path / "out" / os.fsdecode(b"caf\xe9.json")).read_text("utf-8"))
    assert described["width"] == json.loads((tmp_path / "out/plain.json").read_text())["width"]
