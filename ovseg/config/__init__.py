"""Settings: every key with its default, and loading of config files."""

from __future__ import annotations

from ovseg.config.defaults import get_default_cfg
from ovseg.config.load import config_path, load_cfg

__all__ = ["config_path", "get_default_cfg", "load_cfg"]
