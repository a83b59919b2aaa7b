#!/usr/bin/env python
"""Draws a small dataset as somebody's own might look, to try docs/your_data.md with.

The same as `ovseg prepare garden`. Example:
    python datasets/prepare_garden.py --folder garden
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_preparation

main = partial(run_preparation, "garden")

if __name__ == "__main__":
    sys.exit(main())
