#!/usr/bin/env python
"""Checks the captions of COCO against its pictures; they are used as they are.

The same as `ovseg prepare coco_captions`. Example:
    python datasets/prepare_coco_captions.py --root datasets --split train2017
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "coco_captions")

if __name__ == "__main__":
    sys.exit(main())
