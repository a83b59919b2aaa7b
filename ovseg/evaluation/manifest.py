"""How a number came about: what has to be equal for two results to be comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ovseg.d2 import backend
from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.evaluation.results import class_names_hash
from ovseg.readers.documents import parse_yaml
from ovseg.utils.environment import environment_record
from ovseg.vocab import Vocabulary

__all__ = ["decisive_settings", "evaluation_key", "flatten", "make_manifest"]

# Settings that say where things lie, how a run is organised or trained, but not what a model with
# given weights answers.
_WITHOUT_EFFECT = (
    *("OUTPUT_DIR", "SEED", "VERSION", "CUDNN_BENCHMARK", "VIS_PERIOD", "WANDB", "DATASETS"),
    *("DATALOADER", "MODEL.WEIGHTS", "MODEL.TRAINED_WEIGHTS", "INPUT.CROP"),
    *("TEST.EXPECTED_RESULTS", "TEST.EVAL_PERIOD"),
    *("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
    *("INPUT.COLOR_AUG_SSD", "INPUT.SIZE_DIVISIBILITY", "INPUT.DATASET_MAPPER_NAME"),
    *("INPUT.RANDOM_FLIP", "GLOBAL", "MODEL.CLIP_ADAPTER.CLIP_WEIGHTS"),
    *("TEST.TUNED_ON", "TEST.PROTOCOL"),
)
_KEPT_OF_SOLVER = "TEST_IMS_PER_BATCH"


def decisive_settings(config: CfgNode | str) -> dict[str, Any]:
    """List the settings that can change what an evaluation finds.

    Args:
        config: the full config, or its YAML as manifests keep it.

    Returns:
        Values by dotted key, sorted.
    """
    text = config if isinstance(config, str) else config.dump()
    flat = flatten(parse_yaml(text, "config") or {})
    return {
        key: value
        for key, value in sorted(flat.items())
        if not any(key == name or key.startswith(f"{name}.") for name in _WITHOUT_EFFECT)
        and (not key.startswith("SOLVER.") or key == f"SOLVER.{_KEPT_OF_SOLVER}")
    }


def evaluation_key(
    cfg: CfgNode,
    dataset_name: str,
    *,
    weights: Mapping[str, str],
    vocabulary: Vocabulary | None = None,
) -> dict[str, str]:
    """Name what decides the result of a single image, for `ovseg.evaluation.journal`.

    Args:
        cfg: the full config.
        dataset_name: the dataset.
        weights: with `sha256`.
        vocabulary: what the model is asked for.

    Returns:
        Names to short texts and hashes.
    """
    environment = environment_record()
    metadata = MetadataCatalog.get(dataset_name)
    return {
        "dataset": dataset_name,
        "settings": _hash(decisive_settings(cfg)),
        "weights": weights["sha256"],
        "classes": class_names_hash(metadata.stuff_classes),
        "ignore label": str(metadata.ignore_label),
        "vocabulary": vocabulary.key if vocabulary is not None else "",
        "backend": backend(),
        "device": str(environment["device"]),
        "code": f"{environment['ovseg']} {environment['git_commit'] or ''}".strip(),
        "packages": _hash(environment["packages"]),
    }


def make_manifest(
    cfg: CfgNode,
    dataset_name: str,
    *,
    metrics: Mapping[str, Any],
    weights: Mapping[str, str] | None,
    vocabulary: Vocabulary | None = None,
    protocol: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Collect what is needed to tell, later, how the numbers beside it came about.

    Args:
        cfg: the full config.
        dataset_name: the dataset.
        metrics: content of `metrics.json`, empty where the evaluator wrote none.
        weights: name, path and sha256; None where only the config knows.
        vocabulary: what the model was asked for.
        protocol: the method's own choices of inference, see `ovseg.modeling.Segmentor.protocol`.
        run: of this run and without effect on the numbers: processes, seconds.
        remarks: sentences that belong to the numbers, such as how a setting was chosen.

    Returns:
        A dict for JSON.
    """
    hashes = {
        "class_names": class_names_hash(MetadataCatalog.get(dataset_name).stuff_classes),
        "labels": metrics.get("labels_hash"),
        "templates": None,
        "prompts": None,
        "weights": (weights or {}).get("sha256") or None,
        "settings": _hash(decisive_settings(cfg)),
    }
    if vocabulary is not None:
        hashes["templates"] = _hash(list(vocabulary.templates))
        hashes["prompts"] = _hash([list(prompts) for prompts in vocabulary.prompts])
    return {
        "dataset": dataset_name,
        "weights": dict(weights or {"name": cfg.MODEL.WEIGHTS}),
        "backend": backend(),
        "protocol": _protocol(cfg, dataset_name, vocabulary, protocol or {}),
        "hashes": hashes,
        "remarks": list(remarks),
        **(run or {}),
        "environment": environment_record(),
        "config": cfg.dump(),
    }


def _protocol(
    cfg: CfgNode,
    dataset_name: str,
    vocabulary: Vocabulary | None,
    of_method: Mapping[str, str | int | float | bool],
) -> dict[str, str | int | float | bool]:
    """State in plain words what papers leave out of their tables."""
    test = cfg.TEST
    found: dict[str, str | int | float | bool] = {
        "short_side": int(cfg.INPUT.MIN_SIZE_TEST),
        "longest_side": int(cfg.INPUT.MAX_SIZE_TEST),
        "ignore_label": int(MetadataCatalog.get(dataset_name).ignore_label),
        "method": str(cfg.MODEL.META_ARCHITECTURE),
        **of_method,
        "test_time_augmentation": bool(test.AUG.ENABLED),
        "sliding_window": bool(test.SLIDING_WINDOW),
        "dense_crf": bool(test.DENSE_CRF),
        "images_per_batch": int(cfg.SOLVER.TEST_IMS_PER_BATCH),
        "mIoU": "both conventions, see metrics.json",
    }
    if vocabulary is not None:
        strings = sum(len(prompts) for prompts in vocabulary.prompts)
        found["number_of_templates"] = len(vocabulary.templates)
        found["synonyms"] = "none" if strings == len(vocabulary) else f"{strings} strings"
        if vocabulary.background is not None:
            found["background"] = vocabulary.names[vocabulary.background]
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys.

    Args:
        tree: mappings of mappings.
        prefix: put before each key.

    Returns:
        Values by dotted key.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
