from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.fuzz import doors, watched
from tests.fuzz.coverage_guided import CORPUS
from tests.fuzz.damage import damaged
from tests.fuzz.doors import DOORS
from tests.fuzz.known import KNOWN
from tests.fuzz.run import main, replay
from tests.fuzz.watched import BAD, watch


def test_damaged_files_of_every_kind_are_read_or_refused(tmp_path, capsys):
    inputs = str(3 * len(DOORS))
    status = main(["--inputs", inputs, "--tools", "0", "--folder", str(tmp_path)])
    told = capsys.readouterr().out
    assert status == 0, told
    [total] = [line.split() for line in told.splitlines() if line.startswith("all ")]
    assert total[1] == inputs and int(total[2]) > len(DOORS)


@pytest.mark.slow
def test_commands_end_with_a_status_and_one_line(tmp_path, capsys):
    assert main(["--inputs", "14", "--tools", "14", "--folder", str(tmp_path)]) == 0, (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: f"{case[0]}-{case[1]}")
def test_what_once_broke_is_refused(tmp_path, case):
    door, name, data = case
    (tmp_path / door).mkdir()
    file = tmp_path / door / name
    file.write_bytes(data)
    finding = replay(file)
    assert finding.outcome == "refused", finding.text


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*/*")), ids=lambda f: f"{f.parent.name}")
def test_what_fuzzing_found_is_read_or_refused(file):
    finding = replay(file)
    assert finding.outcome not in BAD, finding.text


@pytest.mark.parametrize("name", ["json", "yaml", "csv", "zip", "png", "tar", ""])
def test_damage_follows_from_the_seed_and_changes_most_files(tmp_path, name):
    door = next(door for door in DOORS.values() if door.form == name)
    door.make(tmp_path / door.file)
    whole = (tmp_path / door.file).read_bytes()
    first, again = ([damaged(whole, name, random.Random(n)) for n in range(40)] for _ in range(2))
    assert first == again
    assert len({data for data, _ in first} - {whole}) > 30


@pytest.mark.parametrize("name", ["torch", "png", "dataset_yaml", "captions_tar", "classes_csv"])
def test_what_was_damaged_can_be_damaged_further(tmp_path, name):
    door = DOORS[name]
    door.make(tmp_path / door.file)
    data = (tmp_path / door.file).read_bytes()
    empty_zip = b"PK\x05\x06" + bytes(18)
    for seed in range(200):
        rng = random.Random(seed)
        data, _ = damaged(empty_zip if seed == 100 else data, door.form, rng)
        assert isinstance(data, bytes)


def test_a_death_a_long_wait_and_much_memory_are_told_apart_and_survived(monkeypatch):
    monkeypatch.setattr(watched, "_EXTRA_BYTES", 2**26)

    def work(number, begin):
        begin()
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while number == 2:
            pass
        if number == 3:
            assert b"x" * 2**27
        return "refused", str(number)

    found = list(watch(work, range(5), of=lambda n: bytes([n]), seconds=2))
    outcomes = [finding.outcome for finding in found]
    assert outcomes == ["refused", "crash", "hang", "memory", "refused"]
    assert found[1].text == f"ended with {-signal.SIGKILL}" and found[1].data == b"\1"


def test_a_wrong_error_and_another_content_behind_a_checksum_are_bad(tmp_path, monkeypatch, capsys):
    def read(path: Path) -> int:
        return len(path.read_bytes()) if path.stat().st_size < 100 else {}["no"]

    door = doors.Door("a", lambda path: path.write_bytes(bytes(90)), read, checked=True)
    monkeypatch.setitem(DOORS, "png", door)
    words = ["--inputs", "60", "--tools", "0", "--only", "png", "--folder", str(tmp_path)]
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "silent: " in told and "traceback: " in told and "KeyError" in told
    kept = sorted((tmp_path / "png").glob("0-*"))
    assert kept and main(["--again", *map(str, kept)]) == 1
