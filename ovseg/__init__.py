"""Open-vocabulary semantic segmentation: name anything, get its pixels.

Importing this package imports no torch; `load` does when it is called.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg.predictor import Predictor

# fvcore scripts two functions when it is imported, which newer torch releases complain about.
warnings.filterwarnings("ignore", r"`torch\.jit", FutureWarning)

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load(name_or_path: str | None = None, **kwargs: Any) -> Predictor:
    """Load a trained segmenter by catalogue name or from a weights file.

    Args:
        name_or_path: a name of `ovseg.weights.catalogue.entries()`, a local file or a URL; what
            is not here yet is downloaded. None for what the config names, and without a config
            for the bundled "ovseg_tiny".
        **kwargs: `config`, `device` and `opts`, see `ovseg.predictor.load`.

    Returns:
        A `Predictor`, ready for `.segment(image, names)` and `.set_image(image)`.

    Raises:
        ValueError: if neither a catalogue entry nor a file has that name.
        ovseg.weights.download.DownloadError: if it has to be downloaded and cannot be.
    """
    from ovseg.utils.threads import share_cores

    share_cores()
    from ovseg.predictor import load as load_predictor

    return load_predictor(name_or_path, **kwargs)
