from __future__ import annotations

from ovseg.utils.wording import counted


def test_one_is_told_from_several():
    assert [counted(n, "fault") for n in (0, 1, 2)] == ["0 faults", "1 fault", "2 faults"]
    assert counted(1, "class is", "classes are") == "1 class is"
    assert counted(3, "class is", "classes are") == "3 classes are"
