#!/usr/bin/env python
"""Turns the label maps of COCO-Stuff into those of COCO-Object: 80 things and a background.

The same as `ovseg prepare coco_object`. Example:
    python datasets/prepare_coco_object.py --root datasets
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "coco_object")

if __name__ == "__main__":
    sys.exit(main())
