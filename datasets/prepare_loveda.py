#!/usr/bin/env python
"""Makes the labels of LoveDA from its masks.

The same as `ovseg prepare loveda`. Example:
    python datasets/prepare_loveda.py --root datasets --split val --workers 8
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "loveda")

if __name__ == "__main__":
    sys.exit(main())
