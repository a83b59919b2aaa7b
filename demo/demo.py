#!/usr/bin/env python
"""Segment pictures into the classes you name; the command `ovseg demo`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_command

main = partial(run_command, "demo", program="demo.py")

if __name__ == "__main__":
    sys.exit(main())
