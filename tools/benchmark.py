#!/usr/bin/env python
"""Measure what segmenting a picture costs; the command `ovseg benchmark`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_command

main = partial(run_command, "benchmark", program="benchmark.py")

if __name__ == "__main__":
    sys.exit(main())
