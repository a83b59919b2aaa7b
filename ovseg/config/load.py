"""Finding config files by name and reading them into a frozen config."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ovseg
from ovseg.config.compatibility import warn_of_keys_without_effect
from ovseg.config.defaults import get_default_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.methods import import_method, method_module
from ovseg.readers.documents import DocumentError, parse_yaml, read_text

__all__ = ["config_path", "load_cfg", "setting_pairs"]

_NAMES_OF_DATASETS = ("DATASETS.TRAIN", "DATASETS.TEST")
# Sections of detectors in configs that the real Detectron2 has written out; a segmentation
# model reads none of them, and the lite backend does not know them.
_DETECTOR_SECTIONS = (
    "ANCHOR_GENERATOR",
    "FPN",
    "PANOPTIC_FPN",
    "PROPOSAL_GENERATOR",
    "RETINANET",
    "ROI_BOX_CASCADE_HEAD",
    "ROI_BOX_HEAD",
    "ROI_HEADS",
    "ROI_KEYPOINT_HEAD",
    "ROI_MASK_HEAD",
    "RPN",
)


def load_cfg(path_or_name: str | Path | CfgNode, opts: Sequence[Any] = ()) -> CfgNode:
    """Read a config file with its `_BASE_` files, override settings, freeze the result.

    A method outside this package's core brings its own keys: the module that `ovseg.d2.methods`
    names for the config's `MODEL.META_ARCHITECTURE` is imported, and where it has a function
    `add_config(cfg)` that adds them with their defaults, this is called before anything is merged.

    Args:
        path_or_name: a YAML file, or the name of a shipped config such as "ovseg_swinB"; or a full
            config, which is copied.
        opts: settings to override, as KEY, VALUE, KEY, VALUE, ...

    Returns:
        The frozen config with a value for every key.

    Raises:
        FileNotFoundError: if there is no such file and no shipped config of that name.
        ValueError: if a file holds a Python tag, is not a mapping or its bases form a circle,
            if `opts` are not pairs or hold an unusable value, or if a config lacks our keys.
        KeyError: if a key or the method is unknown.
        ImportError: if the method's module cannot be imported.
    """
    overrides = setting_pairs(opts)
    if isinstance(path_or_name, CfgNode):
        if "CLIP_ADAPTER" not in path_or_name.MODEL:
            raise ValueError(
                "config: expected the keys of ovseg, got Detectron2's alone; call "
                "ovseg.detectron2.add_ovseg_config(cfg) before files are merged"
            )
        cfg = path_or_name.clone()
        cfg.defrost()
    else:
        cfg = _read_full(config_path(path_or_name), overrides)
    _override(cfg, overrides)
    warn_of_keys_without_effect(cfg)
    cfg.freeze()
    return cfg


def _read_full(path: Path, overrides: Sequence[tuple[Any, Any]]) -> CfgNode:
    """Read a file on top of the defaults of all keys, those of its method among them."""
    values = _read_with_bases(path, ())
    cfg = get_default_cfg()
    _check_sections(path, values, cfg)
    model = values.get("MODEL", {})
    method = model.get("META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE)
    if not isinstance(method, str):
        raise ValueError(
            f"{path}: MODEL.META_ARCHITECTURE: expected the name of a method, got {method!r}"
        )
    chosen = dict(overrides).get("MODEL.META_ARCHITECTURE", method)
    try:
        _add_keys_of_method(cfg, chosen)
    except KeyError as error:
        raise KeyError(f"{path}: {error.args[0]}" if chosen == method else error.args[0]) from error
    for key, names in values.get("DATASETS", {}).items():
        if f"DATASETS.{key}" in _NAMES_OF_DATASETS and isinstance(names, str):
            values["DATASETS"][key] = _names(names)
    for section in _DETECTOR_SECTIONS:
        if section not in cfg.MODEL:
            model.pop(section, None)
    _convert_numbers(values, cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(values))
    except (KeyError, ValueError) as error:
        raise type(error)(f"{path}: {error.args[0]}") from error
    except AssertionError as error:  # of yacs, for a date and the like
        raise ValueError(f"{path}: {error}") from error
    return cfg


def _check_sections(path: Path, values: dict[str, Any], known: CfgNode, above: str = "") -> None:
    """Refuse what is no section where one has to be; one without any keys is left out, in place."""
    for key, value in list(values.items()):
        if not isinstance(key, str):
            raise ValueError(f"{path}: {above}{key!r}: expected a name as key; put it in quotes")
        if not isinstance(known.get(key), CfgNode):
            continue
        if value is None:
            del values[key]
        elif isinstance(value, dict):
            _check_sections(path, value, known[key], f"{above}{key}.")
        else:
            raise ValueError(
                f"{path}: {above}{key}: expected a section of KEY: VALUE settings, got {value!r}"
            )


def config_path(path_or_name: str | Path) -> Path:
    """Find a config file.

    Args:
        path_or_name: an existing file, or the name of a shipped config with or without "configs/"
            before it and ".yaml" after it.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: if neither is found; the message lists the shipped names.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    # As commands write it, also where there is no checkout.
    name = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    shipped = {
        str(file.relative_to(folder).with_suffix("")): file
        for folder in _config_folders()
        for file in sorted(folder.rglob("*.yaml"))
    }
    if name in shipped:
        return shipped[name]
    names = ", ".join(n for n in shipped if not n.startswith("_base_")) or "none"
    raise FileNotFoundError(
        f"no config file {str(path_or_name)!r} and no shipped config of that name; shipped: {names}"
    )


def _config_folders() -> list[Path]:
    """The folder of this package's configs and those of the projects."""
    package = Path(ovseg.__file__).resolve().parent
    # Inside the package when installed from a wheel, beside it in a checkout.
    root = package if (package / "configs").is_dir() else package.parent
    return [root / "configs", *sorted(root.glob("projects/*/configs"))]


def _add_keys_of_method(cfg: CfgNode, name: str) -> None:
    # The keys of the package's own methods are in the defaults: no model is imported for them.
    if not method_module(name).startswith("ovseg.modeling."):
        add_config = getattr(import_method(name), "add_config", None)
        if add_config is not None:
            add_config(cfg)


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read one file on top of the files that its `_BASE_` names, relative to it."""
    path = path.resolve()
    if path in seen:
        chain = " -> ".join(file.name for file in (*seen, path))
        raise ValueError(f"the _BASE_ entries of these configs form a circle: {chain}")
    values = _read_yaml(path)
    bases = values.pop("_BASE_", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: _BASE_: expected the name of a file or several, got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        base_path = path.parent / Path(base).expanduser()
        if not base_path.is_file():
            raise FileNotFoundError(f"{path}: its _BASE_ {base!r} is not a file ({base_path})")
        _merge(_read_with_bases(base_path, (*seen, path)), merged)
    _merge(values, merged)
    return merged


def _merge(source: dict[str, Any], target: dict[str, Any]) -> None:
    if "WEIGHTS" in source:
        target.pop("TRAINED_WEIGHTS", None)  # of the weights that are replaced
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(value, target[key])
        else:
            target[key] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        values = parse_yaml(text, path)
    except DocumentError as error:
        if error.tag_line is not None:
            raise ValueError(_explain_tag(path, text, error.tag_line)) from error
        raise ValueError(f"{path} is not valid YAML: {error.reason}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold KEY: VALUE settings, got a {type(values).__name__}")
    return values


def _explain_tag(path: Path, text: str, line_number: int) -> str:
    line = text.splitlines()[line_number].strip()
    key = line.partition(":")[0] if ":" in line.partition("!")[0] else "KEY"
    return (
        f"{path}, line {line_number + 1}: YAML tags that run Python are refused, got {line!r}; "
        f"write the value itself: {key}: {_literal_for(line)}"
    )


def _literal_for(line: str) -> str:
    """Give the literal that a tagged line stands for, where it can be told without running it."""
    sequence = re.search(r"!!python/tuple\s*(\[.*\])", line)
    if sequence:
        return sequence.group(1)
    # The usual form in this family of configs: [int(x * 0.1 * 640) for x in range(5, 21)]
    scales = re.search(
        r"\[\s*int\(\s*x\s*\*\s*([\d.]+)\s*\*\s*([\d.]+)\s*\)\s+for\s+x\s+in\s+"
        r"range\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*\]",
        line,
    )
    if scales is None:
        return "[320, 384, 448]  (for example; the numbers that the expression gives)"
    step, size = float(scales.group(1)), float(scales.group(2))
    return str([int(x * step * size) for x in range(int(scales.group(3)), int(scales.group(4)))])


def _convert_numbers(values: dict[str, Any], known: CfgNode) -> None:
    """Turn 5 into 5.0 where a key is a float, into "5" where it is a text; in place."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(known.get(key), CfgNode):
            _convert_numbers(value, known[key])
        elif isinstance(value, str) or type(value) is int:
            values[key] = _as_text(_as_float(value, known.get(key)), known.get(key))


def _as_text(value: Any, known: Any) -> Any:
    """Quote what yacs takes for a number, such as the folder 2024_11, where a text is known."""
    if not isinstance(known, str) or isinstance(value, bool):
        return value
    try:
        literal = ast.literal_eval(str(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        literal = None
    is_number = isinstance(literal, (int, float, complex)) and not isinstance(literal, bool)
    is_number = is_number or bool(re.fullmatch(r"[\d.eE+-]+", str(value)))
    return repr(str(value)) if is_number else value


def _as_float(value: Any, known: Any) -> Any:
    """Return a whole number, or the text of one, as a float where the known value is a float."""
    if not isinstance(known, float) or isinstance(value, bool):
        return value
    whole = isinstance(value, int) or re.fullmatch(r"\s*[+-]?\d+\s*", str(value))
    return float(value) if whole else value


def _value_at(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for name in key.split("."):
        node = node.get(name) if isinstance(node, CfgNode) else None
    return node


def setting_pairs(opts: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Read the settings at the end of a command line.

    Args:
        opts: KEY, VALUE, KEY, VALUE, ...; a separating "--", which argparse keeps, may go ahead.

    Returns:
        The pairs.

    Raises:
        ValueError: if there is a flag among them, or an odd number.
    """
    items = [*opts[1:]] if opts and opts[0] == "--" else [*opts]
    flags = [item for item in items if isinstance(item, str) and re.match(r"--[a-z]", item)]
    if flags:
        raise ValueError(
            f"{flags[0]}: expected flags before the settings, got it among them: {items}; what "
            f"follows the first KEY VALUE is read as settings, so put {flags[0]} in front"
        )
    if len(items) % 2:
        raise ValueError(
            f"settings to override come in pairs KEY VALUE, got an odd number: {items}"
        )
    return list(zip(items[::2], items[1::2], strict=True))


def _override(cfg: CfgNode, overrides: Sequence[tuple[Any, Any]]) -> None:
    if "MODEL.WEIGHTS" in dict(overrides):
        cfg.MODEL.TRAINED_WEIGHTS = ""
    for key, value in overrides:
        key = str(key)
        if key in _NAMES_OF_DATASETS and isinstance(value, str):
            value = _names(value)
        try:
            known = _value_at(cfg, key)
            cfg.merge_from_list([key, _as_text(_as_float(value, known), known)])
        except (AssertionError, KeyError, TypeError) as error:
            raise KeyError(f"unknown setting {key!r}{_similar(cfg, key)}") from error
        except ValueError as error:
            raise ValueError(f"setting {key!r} cannot be {value!r}: {error.args[0]}") from error


def _names(text: str) -> Any:
    """Takes names as they are, apart by commas, besides the literal of a tuple or list."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _similar(cfg: CfgNode, key: str) -> str:
    """Name the closest key, or else what the deepest section that exists holds."""
    node: Any = cfg
    *sections, name = key.split(".")
    path = ""
    for section in sections:
        if not isinstance(node.get(section), CfgNode):
            break
        node, path = node[section], f"{path}{section}."
    close = difflib.get_close_matches(name, sorted(node), n=1)
    if close:
        return f"; did you mean '{path}{close[0]}'?"
    return f"; there are: {', '.join(f'{path}{known}' for known in sorted(node))}"
