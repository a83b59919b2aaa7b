#!/usr/bin/env python
"""Turns the annotation of the full ADE20K into labels of 847 classes.

The same as `ovseg prepare ade20k_full`. Example:
    python datasets/prepare_ade20k_full.py --root datasets
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "ade20k_full")

if __name__ == "__main__":
    sys.exit(main())
