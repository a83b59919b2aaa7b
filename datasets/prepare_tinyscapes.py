#!/usr/bin/env python
"""Writes the miniature world tinyscapes: pictures, labels, instances and captions as COCO's.

The same as `ovseg prepare tinyscapes`. Example:
    python datasets/prepare_tinyscapes.py --root datasets --train 4000 --val 500 --test 1000
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "tinyscapes")

if __name__ == "__main__":
    sys.exit(main())
