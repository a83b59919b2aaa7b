#!/usr/bin/env python
"""Makes the labels of Pascal VOC-20 and VOC-21 from the masks of VOC 2012.

The same as `ovseg prepare voc`. Example:
    python datasets/prepare_voc.py --root datasets --split val --workers 8
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "voc")

if __name__ == "__main__":
    sys.exit(main())
