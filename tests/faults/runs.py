"""Runs that have no small command of their own, for `make faults`.

python -m tests.faults.runs ablation OUTPUT
python -m tests.faults.runs download ADDRESS OUTPUT
"""

from __future__ import annotations

import hashlib
import http.server
import random
import sys
import threading
import time
from pathlib import Path

SIZE = 8 * 2**20
_PIECES = 200
_SECONDS = 4.0


def content() -> bytes:
    """What the server has."""
    return random.Random(0).randbytes(SIZE)


class _Slow(http.server.BaseHTTPRequestHandler):
    """Sends one file in pieces, from any place on, as servers of weights do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = content()
        place = self.headers.get("Range", "")
        begin = int(place.removeprefix("bytes=").rstrip("-")) if place else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{SIZE - 1}/{SIZE}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(SIZE - begin))
        self.end_headers()
        step = SIZE // _PIECES
        for start in range(begin, SIZE, step):
            try:
                self.wfile.write(body[start : start + step])
            except OSError:  # who asked was killed
                self.close_connection = True
                return
            time.sleep(_SECONDS / _PIECES)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def serve() -> str:
    """Start a server that ends with this process; returns the file's address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/weights"


def _bundled(folder: Path, seed: int) -> Path:
    from ovseg.weights import catalogue

    return catalogue.entries()["ovseg_tiny"].bundled_path


def _ablation(output: str) -> None:
    from ovseg.tinyscapes.ablation import ROWS, AblationSize
    from ovseg.tinyscapes.ablation_run import Ablation, run_ablation

    size = AblationSize(pictures=60, steps=2, accuracy_scenes=2, val=2, test=2)
    rows = [row for row in ROWS if row.name in ("as_trained", "classes", "mined_1")]
    run_ablation(Ablation(Path(output), size, _bundled), [0], rows=rows, workers=2)


def _download(address: str, output: str) -> None:
    from ovseg.weights.download import download

    checksum = hashlib.sha256(content()).hexdigest()
    download(address, Path(output) / "weights", sha256=checksum, progress=False)


if __name__ == "__main__":
    {"ablation": _ablation, "download": _download}[sys.argv[1]](*sys.argv[2:])
