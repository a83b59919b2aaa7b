from __future__ import annotations

import numpy as np
import pytest

from ovseg.evaluation.counts import ImageCounts
from ovseg.evaluation.journal import Journal, JournalError

KEY = {"weights": "a" * 64, "settings": "b" * 64}


def counts(*pixels: int) -> ImageCounts:
    values = np.array(pixels, np.int64)
    return ImageCounts(np.arange(len(values)), values, labels_hash="f00", predictions=({"a": 1},))


def test_what_was_appended_comes_back(tmp_path) -> None:
    journal = Journal(tmp_path / "journal", KEY)
    assert journal.read() == {}
    assert not journal.folder.exists()
    journal.append("ä.jpg", counts(3, 4))
    journal.append("b.jpg", counts(5))
    found = Journal(tmp_path / "journal", KEY).read()
    assert list(found) == ["ä.jpg", "b.jpg"]
    np.testing.assert_array_equal(found["ä.jpg"].pixels, [3, 4])
    np.testing.assert_array_equal(found["ä.jpg"].cells, [0, 1])
    assert found["b.jpg"].labels_hash == "f00" and found["b.jpg"].predictions == ({"a": 1},)


@pytest.mark.parametrize("lost", [1, 2, 40])
def test_a_torn_last_line_costs_its_own_image_only(tmp_path, lost) -> None:
    journal = Journal(tmp_path, KEY)
    journal.append("a", counts(1))
    journal.append("b", counts(2))
    journal.close()
    [part] = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:-lost])
    later = Journal(tmp_path, KEY)
    assert list(later.read()) == ["a"]
    later.append("b", counts(2))  # goes to a new file: the torn line stays the last of its own
    assert list(Journal(tmp_path, KEY).read()) == ["a", "b"]


def test_processes_write_to_files_of_their_own(tmp_path) -> None:
    one, two = Journal(tmp_path, KEY), Journal(tmp_path, KEY)
    one.append("a", counts(1))
    two.append("b", counts(2))
    one.append("c", counts(3))
    assert len(list(tmp_path.iterdir())) == 2
    assert set(Journal(tmp_path, KEY).read()) == {"a", "b", "c"}


def test_another_evaluation_is_refused_and_the_difference_named(tmp_path) -> None:
    Journal(tmp_path, KEY).append("a", counts(1))
    with pytest.raises(JournalError, match=r"evaluation, .*: key\.weights: a{64} -> c\. To"):
        Journal(tmp_path, KEY | {"weights": "c"}).read()
    with pytest.raises(JournalError, match=r"key\.device: .* -> cpu\. .*choose another OUTPUT_DIR"):
        Journal(tmp_path, KEY | {"device": "cpu"}).read()


def test_a_file_of_another_kind_is_refused(tmp_path) -> None:
    (tmp_path / "part-0000.jsonl").write_text('{"format": 99}\n')
    with pytest.raises(JournalError, match=r"format: 99 -> 1; .*delete the folder"):
        Journal(tmp_path, KEY).read()


def test_removing_leaves_foreign_files_alone(tmp_path) -> None:
    folder = tmp_path / "journal"
    journal = Journal(folder, KEY)
    journal.append("a", counts(1))
    (folder / "notes.txt").write_text("mine")
    journal.remove()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    journal.append("a", counts(1))
    journal.remove()
    assert not folder.exists()
