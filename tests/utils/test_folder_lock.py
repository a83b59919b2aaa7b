from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ovseg.utils.folder_lock import LOCK_NAME, BusyFolderError, only_run
from tests.helpers import ROOT, run_python

HOLD = (
    "import sys, time\n"
    "from ovseg.utils.folder_lock import only_run\n"
    "with only_run(sys.argv[1], what='a training'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_run_is_told_whose_the_folder_is_and_a_killed_one_frees_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"held\n"
    told = rf"in use \(a training, process {first.pid} on .*, since \d{{4}}-.*; wait until"
    with pytest.raises(BusyFolderError, match=told), only_run(tmp_path, what="x", patience=0):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with only_run(tmp_path, what="a training"):
        assert (tmp_path / LOCK_NAME).is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_run_waits_for_one_that_is_about_to_end(tmp_path):
    hold = HOLD.replace("time.sleep(60)", "time.sleep(1)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"held\n"
    with only_run(tmp_path, what="the next"):
        assert '"what": "the next"' in (tmp_path / LOCK_NAME).read_text()
    assert first.wait() == 0


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(tmp_path):
    write = "import os\nfrom ovseg.utils.files import atomic_path\n"
    write += f"with atomic_path({str(tmp_path / 'model.pth')!r}) as p:\n"
    write += "    p.write_text('half'); os.kill(os.getpid(), 9)\n"
    assert run_python("-c", write).returncode == -9
    [left] = tmp_path.iterdir()
    kept = {".hidden", ".model.backup01.pth", "model.part", ".notes.part.txt"}
    for name in kept:
        (tmp_path / name).write_text("")
    with only_run(tmp_path, what="x"):
        assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_failed_run_frees_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run(tmp_path / "new", what="x"):
        1 / 0  # noqa: B018
    with only_run(tmp_path / "new", what="x"):
        pass
