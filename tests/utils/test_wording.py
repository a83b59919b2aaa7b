from __future__ import annotations

from ovseg.utils.wording import counted, markdown_text, printable


def test_one_is_told_from_several():
    assert [counted(n, "fault") for n in (0, 1, 2)] == ["0 faults", "1 fault", "2 faults"]
    assert counted(1, "class is", "classes are") == "1 class is"
    assert counted(3, "class is", "classes are") == "3 classes are"


def test_what_comes_from_outside_neither_steers_a_terminal_nor_becomes_markup():
    assert printable("red\x1b[31m star\n\u200bé") == "red [31m star  é"
    assert markdown_text("<img src=x>|a & b\n# title") == "&lt;img src=x&gt;\\|a &amp; b # title"
