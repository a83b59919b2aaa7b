"""Settings: every key with its default, and loading of config files; the methods they may name."""

from __future__ import annotations

from ovseg.config.defaults import get_default_cfg
from ovseg.config.load import config_path, load_cfg, setting_pairs
from ovseg.d2.methods import known_methods, register_method

__all__ = [
    "config_path",
    "get_default_cfg",
    "known_methods",
    "load_cfg",
    "register_method",
    "setting_pairs",
]
