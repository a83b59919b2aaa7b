"""The stages that make the bundled model from nothing; `tools/build_tiny.py` runs them.

    pictures   training scenes, with labels of the seen classes and captions of everything
    clip       a CLIP from nothing, on captioned close-ups and scenes
    longer     its image tower trained on, beside the locked texts
    proposals  the mask generator, on masks and names of the seen classes, beside the same texts
    base       both together
    round 1..  pairs mined from captions with the model so far, its CLIP adapted to them and to
               labelled masks of the seen classes

Each stage has a folder with a record of what it was made from. A finished stage is kept, an
interrupted one goes on, and one that was made otherwise (another seed, length or earlier stage) is
refused. Every stage follows from the seed alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.clip.adapted import replace_clip
from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.config import ClipTrainConfig, load_clip_config
from ovseg.clip_training.train import RESULT_NAME
from ovseg.clip_training.train import train_clip as train_clip_on_pairs
from ovseg.config import load_cfg
from ovseg.data.catalog import dataset_root
from ovseg.tinyscapes import VERSION, render_pair, write_split
from ovseg.tinyscapes.ablation_pairs import collect_pairs
from ovseg.utils.files import sha256_of
from ovseg.utils.run_record import RunRecord
from ovseg.weights.clip import CLIP_IN_OVSEG
from ovseg.weights.load import load_strict, read_state_dict, write_safetensors

__all__ = ["CONFIG", "FULL", "QUICK", "Recipe", "Schedule", "train_net"]

CONFIG = "ovseg_tiny"
FROM_NOTHING, LONGER, ADAPT = "clip_tiny_from_nothing", "clip_tiny_longer", "clip_tiny_adapt"
REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"
RECORD = "stage.json"


@dataclass(frozen=True)
class Schedule:
    """How long every stage takes.

    Attributes:
        pictures: training scenes.
        clip_steps: of the CLIP from nothing.
        longer_steps: of its image tower, afterwards.
        iterations: of the mask generator.
        mined_pictures: scenes that a round takes pairs from.
        adaptation_steps: of each round.
        rounds: how often CLIP is adapted to what the model mines with it.
    """

    pictures: int = 10_000
    clip_steps: int = 2000
    longer_steps: int = 6000
    iterations: int = 6000
    mined_pictures: int = 4000
    adaptation_steps: int = 500
    rounds: int = 2

    @property
    def stages(self) -> dict[str, tuple[str, ...]]:
        """Every stage with those that it needs, in an order in which they can be run."""
        needs: dict[str, tuple[str, ...]] = {
            "pictures": (),
            "clip": (),
            "proposals": ("pictures", "clip"),
            "longer": ("clip",),
            "base": ("proposals", "longer"),
        }
        before = "base"
        for number in range(1, self.rounds + 1):
            needs[f"round {number}"] = ("pictures", before)
            before = f"round {number}"
        return needs

    @property
    def last(self) -> str:
        """The stage whose result is the model."""
        return list(self.stages)[-1]


FULL = Schedule()
QUICK = Schedule(
    pictures=4000,
    clip_steps=700,
    longer_steps=700,
    iterations=1000,
    mined_pictures=1500,
    adaptation_steps=250,
    rounds=1,
)


@dataclass(frozen=True)
class Recipe:
    """One run of all stages.

    Attributes:
        folder: receives a folder per stage.
        seed: of initial weights, orders and random changes.
        schedule: how long the stages take.
        workers: processes that mine.
    """

    folder: Path
    seed: int = 0
    schedule: Schedule = FULL
    workers: int = 1

    def run(self, stage: str) -> Path:
        """Do one stage, unless it is done; those that it needs must be done before.

        Args:
            stage: a key of `Schedule.stages`.

        Returns:
            The stage's folder, which holds `model.safetensors` (of "pictures": nothing).

        Raises:
            AnotherRunError: the folder was made with other settings.
        """
        target = self._claim(stage)
        if stage == "pictures":
            write_split(dataset_root(), "train", self.schedule.pictures, workers=self.workers)
        elif not (target / WEIGHTS).exists():
            name, _, number = stage.partition(" ")
            make: dict[str, Callable[[Path], dict[str, Tensor]]] = {
                "clip": self._train_clip,
                "longer": self._train_longer,
                "proposals": self._train_proposals,
                "base": self._assemble,
                "round": lambda folder: self._adapt(folder, int(number)),
            }
            self._write(target / WEIGHTS, make[name](target))
        return target

    def folder_of(self, stage: str) -> Path:
        """Where a stage's files are."""
        return self.folder / stage.replace(" ", "_")

    def weights_of(self, stage: str) -> Path:
        """The weights that a finished stage left."""
        return self.folder_of(stage) / WEIGHTS

    def _claim(self, stage: str) -> Path:
        """The stage's folder, with the record of what it is made from."""
        target = self.folder_of(stage)
        target.mkdir(parents=True, exist_ok=True)
        RunRecord(
            self._record(stage),
            what=f"stage {stage!r} of the bundled model",
            remedy="remove the folder or choose another one with --output",
        ).claim(target / RECORD)
        return target

    def _record(self, stage: str) -> dict[str, Any]:
        """All that a stage's result follows from."""
        needs = [name for name in self.schedule.stages[stage] if name != "pictures"]
        lengths = asdict(self.schedule)
        used = {
            "pictures": ("pictures",),
            "clip": ("clip_steps",),
            "longer": ("longer_steps",),
            "proposals": ("pictures", "iterations"),
            "base": (),
        }.get(stage, ("mined_pictures", "adaptation_steps"))
        return {
            "stage": stage,
            "world": VERSION,
            "seed": self.seed,
            "schedule": {name: lengths[name] for name in used},
            "made from": {name: sha256_of(self.weights_of(name)) for name in needs},
        }

    def _write(self, target: Path, state: dict[str, Tensor]) -> None:
        metadata = {"world": VERSION, "seed": str(self.seed), "license": "Apache-2.0"}
        write_safetensors(target, state, metadata=metadata)

    def _train_clip(self, folder: Path) -> dict[str, Tensor]:
        """A CLIP from nothing."""
        config = self._clip_config(FROM_NOTHING, self.schedule.clip_steps)
        torch.manual_seed(self.seed)
        clip = new_clip()
        pairs = caption_pairs(config, clip.image_size)
        train_clip_on_pairs(config, clip, pairs, output_dir=folder, resume=True)
        return clip.state_dict()

    def _train_longer(self, folder: Path) -> dict[str, Tensor]:
        """The image tower, on pictures that it has not seen."""
        config = self._clip_config(LONGER, self.schedule.longer_steps)
        clip = new_clip()
        load_strict(clip, read_state_dict(self.weights_of("clip")))
        seen = self.schedule.clip_steps * load_clip_config(FROM_NOTHING).batch_size
        pairs = caption_pairs(config, clip.image_size, first=seen)
        train_clip_on_pairs(config, clip, pairs, output_dir=folder, resume=True)
        return clip.state_dict()

    def _train_proposals(self, folder: Path) -> dict[str, Tensor]:
        """The mask generator beside the CLIP so far, by the script that users train with."""
        train_net(
            "--resume",
            *("OUTPUT_DIR", str(folder)),
            *("SEED", str(self.seed)),
            *("MODEL.WEIGHTS", ""),
            *("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", str(self.weights_of("clip"))),
            *("SOLVER.MAX_ITER", str(self.schedule.iterations)),
            *("DATASETS.TEST", "()"),
        )
        return read_state_dict(folder / "model_final.safetensors")

    def _assemble(self, folder: Path) -> dict[str, Tensor]:
        """The mask generator with the CLIP that was trained for longer, in half precision."""
        state = read_state_dict(self.weights_of("proposals"))
        return with_clip(state, read_state_dict(self.weights_of("longer")))

    def _adapt(self, folder: Path, number: int) -> dict[str, Tensor]:
        """One round: mine with the model so far, adapt its CLIP."""
        before = self.weights_of("base" if number == 1 else f"round {number - 1}")
        state = read_state_dict(before)
        clip = clip_of(state)
        config = self._clip_config(ADAPT, self.schedule.adaptation_steps)
        pairs = collect_pairs(
            "adaptation",
            folder=folder,
            base=before,
            pictures=self.schedule.mined_pictures,
            image_size=clip.image_size,
            config=config,
            workers=self.workers,
        )
        train_clip_on_pairs(config, clip, pairs, output_dir=folder / "clip", resume=True)
        return with_clip(state, read_state_dict(folder / "clip" / RESULT_NAME))

    def _clip_config(self, name: str, steps: int) -> ClipTrainConfig:
        return load_clip_config(name, {"seed": self.seed, "steps": steps})


def new_clip() -> MaskPromptedCLIP:
    """The small CLIP with random weights."""
    adapter = load_cfg(CONFIG).MODEL.CLIP_ADAPTER
    return build_clip(adapter.CLIP_MODEL_NAME, mask_prompt_depth=adapter.MASK_PROMPT_DEPTH)


def clip_of(state: dict[str, Tensor]) -> MaskPromptedCLIP:
    """The CLIP inside a whole model's state."""
    own = {
        n.removeprefix(CLIP_IN_OVSEG): t for n, t in state.items() if n.startswith(CLIP_IN_OVSEG)
    }
    clip = new_clip()
    load_strict(clip, own)
    return clip


def with_clip(state: dict[str, Tensor], clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole model's state with another CLIP, in half precision."""
    whole = replace_clip(state, clip).state
    return {n: t.half() if t.is_floating_point() else t for n, t in whole.items()}


def caption_pairs(
    config: ClipTrainConfig, image_size: tuple[int, int], *, first: int = 0
) -> CaptionPairs:
    """As many captioned pictures as a run takes.

    Args:
        config: with steps.
        image_size: (height, width) that the CLIP takes.
        first: number of the first picture.

    Returns:
        The pairs, drawn when they are asked for.
    """
    assert config.steps is not None
    count = config.steps * config.batch_size
    return CaptionPairs(render_pair, count=count, image_size=image_size, first=first)


def train_net(*arguments: str) -> None:
    """Run tools/train_net.py on the tiny config in a process of its own."""
    script = str(REPOSITORY / "tools" / "train_net.py")
    subprocess.run([sys.executable, script, "--config-file", CONFIG, *arguments], check=True)
