"""`python -m ovseg` is the command `ovseg`."""

from __future__ import annotations

import sys

from ovseg.commands.run import main

if __name__ == "__main__":
    sys.exit(main())
