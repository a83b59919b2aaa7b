from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ovseg.benchmark.accuracy import measure_accuracy
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.modeling.prediction import MaskPrediction
from tests.benchmark.ready import ready_ways

NAMES = ("cat", "sky")


@pytest.fixture
def scenes(tmp_path):
    """Three pictures; the upper half is class 0, the lower class 1, the last row is ignored."""
    records = []
    labels = np.zeros((40, 50), np.uint8)
    labels[20:] = 1
    labels[-1] = 255
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        files = [str(tmp_path / f"{kind}{number}.png") for kind in ("picture", "labels")]
        Image.fromarray(picture).save(files[0])
        Image.fromarray(labels).save(files[1])
        records.append(dict(zip(("file_name", "sem_seg_file_name"), files, strict=True)))
    DatasetCatalog.register("halves", lambda: records)
    MetadataCatalog.get("halves").set(stuff_classes=list(NAMES), ignore_label=255)
    yield "halves"
    DatasetCatalog.remove("halves")
    MetadataCatalog.remove("halves")


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
