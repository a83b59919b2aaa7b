"""tools/train_net.py, whose process kills itself before the step that DIE_AT names."""

from __future__ import annotations

import os
import signal

from ovseg.commands import train
from ovseg.d2.arguments import default_argument_parser
from ovseg.training.step import TrainingStep


class DyingStep(TrainingStep):
    def __call__(self, batch, *, iteration):
        if iteration == int(os.environ["DIE_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch, iteration=iteration)


if __name__ == "__main__":
    import ovseg.training.loop

    ovseg.training.loop.TrainingStep = DyingStep
    train.run(default_argument_parser().parse_args())
