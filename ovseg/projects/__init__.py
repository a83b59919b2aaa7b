"""Further methods built on the same stack; each lives in a folder of the repository's `projects/`.

In a checkout `ovseg.projects.<name>` is `projects/<name>`; in an installed package it lies here.
"""

from __future__ import annotations

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2] / "projects"
# Next to setup.py only: beside an installed package a folder `projects` is somebody else's.
if (_checkout.parent / "setup.py").is_file() and _checkout.is_dir():
    __path__.append(str(_checkout))
