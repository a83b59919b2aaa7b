"""Worker processes that end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import NoReturn

__all__ = ["leave_with_parent"]


def leave_with_parent() -> None:
    """Let this worker process end as soon as the process that started it is gone.

    A killed parent closes no queue that its workers wait on: they would stay forever.
    """
    threading.Thread(target=_wait_and_leave, daemon=True).start()


def _wait_and_leave() -> NoReturn:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
