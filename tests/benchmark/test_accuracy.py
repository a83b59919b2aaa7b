from __future__ import annotations

import pytest

from ovseg.benchmark.accuracy import measure_accuracy
from ovseg.modeling.prediction import MaskPrediction
from tests.benchmark.ready import ready_ways, register_halves, remove_halves


@pytest.fixture
def scenes(tmp_path):
    yield register_halves(tmp_path)
    remove_halves()


def test_each_way_is_scored_and_compared_with_the_first(scenes, monkeypatch):
    ways, asked = ready_ways(), []

    def labels(self):
        """The reference is right; the other way says class 0 in a quarter more of the rows."""
        asked.append(self)
        found = self.masks.new_ones(self.output_size).long()
        found[: 20 if len(asked) % 2 else 30] = 0
        return found

    monkeypatch.setattr(MaskPrediction, "labels", labels)
    found = measure_accuracy(ways, scenes, pictures=2)
    assert found["pictures"] == 2 and len(asked) == 4
    assert found["ways"]["reference"] == {"mIoU": 100.0, "agreement": 1.0}
    # Class 0: 20 of 30 rows. Class 1: 9 of 19, for the ignored row counts for neither.
    assert found["ways"]["exact"]["mIoU"] == pytest.approx(100 * (20 / 30 + 9 / 19) / 2)
    assert found["ways"]["exact"]["agreement"] == 0.75


def test_the_package_as_it_is_says_what_the_reference_says(scenes):
    found = measure_accuracy(ready_ways(), scenes)
    assert found["pictures"] == 3
    assert found["ways"]["exact"]["agreement"] > 0.999
    assert found["ways"]["exact"]["mIoU"] == pytest.approx(
        found["ways"]["reference"]["mIoU"], abs=0.1
    )
