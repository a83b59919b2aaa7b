"""Installs ovseg; the repository's configs and projects travel inside the package.

`configs/` becomes `ovseg.configs`, `demo/samples/` becomes `ovseg.samples`, and a package
`projects/NAME` becomes `ovseg.projects.NAME`, with the YAML files of its `configs/` and without its
tests.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    text = (ROOT / "ovseg" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('ovseg/__init__.py must hold a line __version__ = "..."')
    return found.group(1)


def read_long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# Package -> its folder, where that is not the package's own path.
CONFIGS = {
    "ovseg.configs": "configs",
    "ovseg.configs._base_": "configs/_base_",
    "ovseg.configs.eval": "configs/eval",
}
SAMPLES = {"ovseg.samples": "demo/samples"}
PROJECTS = {
    f"ovseg.projects.{name}": f"projects/{name.replace('.', '/')}"
    for name in find_packages(str(ROOT / "projects"), exclude=["*.tests", "*.tests.*"])
}

# The site, `make docs`.
DOCS = ["sphinx>=8.1,<10", "myst-parser>=4,<6", "furo>=2024.8.6,<2027"]

setup(
    name="ovseg",
    version=read_version(),
    description="Open-vocabulary semantic segmentation with mask-adapted CLIP, and its relatives",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    entry_points={"console_scripts": ["ovseg = ovseg.commands.run:main"]},
    packages=[*find_packages(include=["ovseg", "ovseg.*"]), *CONFIGS, *SAMPLES, *PROJECTS],
    package_dir={**CONFIGS, **SAMPLES, **PROJECTS},
    package_data={
        "ovseg": ["assets/*", "py.typed"],
        "ovseg.clip": ["model_configs/*.json"],
        "ovseg.vocab": ["classes/*"],
        "": ["templates/*"],  # of every room that writes pages
        "ovseg.samples": ["*.jpg"],
        **{name: ["*.yaml"] for name in CONFIGS},
        **{name: ["configs/*.yaml", "configs/*/*.yaml"] for name in PROJECTS},
    },
    # Upper ends: the next major release after the one the tests run with. Lower ends: the oldest
    # release that documents what is used here and has no known hole (docs/security.md); the tests
    # themselves run with the newest.
    install_requires=[
        "torch>=2.1,<3",
        "torchvision>=0.16,<1",
        "open_clip_torch>=3.3,<4",
        "timm>=1.0.10,<2",
        "fvcore>=0.1.5.post20221221,<0.2",
        "iopath>=0.1.9,<0.2",
        "pycocotools>=2.0.7,<3",
        "nltk>=3.9.1,<4",
        "textblob>=0.19,<0.21",
        "opencv-python-headless>=4.8.1.78,<6",
        "numpy>=1.26,<3",
        "scipy>=1.11,<2",
        "pillow>=10.3,<14",
        "pyarrow>=14.0.1,<27",
        "tqdm>=4.66,<5",
        "safetensors>=0.4.2,<1",
        "pyyaml>=6.0,<7",
        "termcolor>=2.3,<4",
        "tabulate>=0.9,<1",
        "tensorboard>=2.14,<3",
        "jinja2>=3.1.6,<4",
    ],
    extras_require={
        # The released checkpoints of OVSeg, which lie on Google Drive.
        "download": ["gdown>=6.5,<7"],
        # PnP-OVSS's matcher; regions from SAM 2, EoMT or Mask2Former.
        "transformers": ["transformers>=5,<6"],
        # Memory banks of many regions; without it the search is exact, in numpy.
        "faiss": ["faiss-cpu>=1.8,<2"],
        # SLIC and Felzenszwalb superpixels.
        "superpixels": ["scikit-image>=0.22,<1"],
        # TIFFs by windows, and label maps with their coordinates.
        "geo": ["rasterio>=1.4,<2"],
        "ray": ["ray>=2.9,<3"],
        "supervision": ["supervision>=0.18,<1"],
        # Source only: takes a C++ compiler.
        "crf": ["pydensecrf2>=1.1,<2"],
        "wandb": ["wandb>=0.16,<1"],
        # `python -m tests.fuzz.coverage_guided`; wheels for Linux only.
        "fuzz": ["atheris>=3,<4"],
        "docs": DOCS,
        "dev": [
            "pytest>=8.0,<10",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "coverage>=7.10,<8",
            "ruff>=0.5,<0.18",
            "mypy>=1.8,<3",
            "setuptools>=69",
            "scikit-image>=0.22,<1",
            "scikit-learn>=1.3,<2",
            "transformers>=5,<6",
            "faiss-cpu>=1.8,<2",
            "rasterio>=1.4,<2",
            "gdown>=6.5,<7",
            *DOCS,
        ],
    },
)
