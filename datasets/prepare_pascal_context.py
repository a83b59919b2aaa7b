#!/usr/bin/env python
"""Makes the labels of Pascal Context-59, -60 and -459 from its MATLAB files.

The same as `ovseg prepare pascal_context`. Example:
    python datasets/prepare_pascal_context.py --root datasets --split val --workers 8
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "pascal_context")

if __name__ == "__main__":
    sys.exit(main())
