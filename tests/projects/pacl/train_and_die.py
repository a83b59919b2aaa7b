"""tools/train_net.py, whose process kills itself before the step that DIE_AT names."""

from __future__ import annotations

import importlib.util
import os
import signal

from ovseg.training.session import make_parser
from ovseg.training.step import TrainingStep
from tests.helpers import ROOT


def load_train_net():
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class DyingStep(TrainingStep):
    def __call__(self, batch, *, iteration):
        if iteration == int(os.environ["DIE_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch, iteration=iteration)


if __name__ == "__main__":
    import ovseg.training.loop

    ovseg.training.loop.TrainingStep = DyingStep
    load_train_net().main(make_parser().parse_args())
