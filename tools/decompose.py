#!/usr/bin/env python
"""Say what holds a model back on a dataset with label maps; the command `ovseg decompose`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.commands.run import run_command

main = partial(run_command, "decompose", program="decompose.py")

if __name__ == "__main__":
    sys.exit(main())
