from __future__ import annotations

from tests.faults.soak import MOST_BYTES, PER, Sample, judge, slope
from tests.helpers import run_python

MIB = 2**20


def samples(added: int, **last: int) -> list[Sample]:
    """Samples of a process to which each picture adds some bytes."""
    made = [Sample(n, 600 * MIB + added * n, 9, 1, 3) for n in range(0, 401, 20)]
    return [*made[:-1], Sample(400, made[-1].resident, **{**BASE, **last})]


BASE = {"handles": 9, "processes": 1, "threads": 3}


def test_growth_is_told_and_what_is_flat_is_not():
    most = MOST_BYTES // PER
    assert abs(slope(samples(1000)) - 1000) < 1e-3
    assert judge(samples(most - 100), after=200) == []
    assert judge(samples(most + 100), after=200) == [
        "resident memory grows by 50.2 MiB in 2000 pictures"
    ]
    assert judge(samples(0, handles=10, threads=4), after=200) == [
        "handles grow from 9 to 10",
        "threads grow from 3 to 4",
    ]
    early = [Sample(0, 100 * MIB, 5, 0, 1), *samples(0)[1:]]
    assert judge(early, after=20) == []


def test_a_few_pictures_leave_nothing_open():
    words = ("--pictures", "32", "--after", "16", "--every", "4", "--longest", "96")
    done = run_python("-m", "tests.faults.soak", *words, "--most", "4000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "picture 32: " in done.stdout and "nothing grows" in done.stdout
