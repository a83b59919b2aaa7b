"""Where each method lives: names of architectures and the modules that register them.

A config names its model by `MODEL.META_ARCHITECTURE`. `META_ARCH_REGISTRY` knows the classes of
modules that were imported; this table knows the modules that could be. It holds strings and
imports nothing until a method is asked for, so one method never loads another.

A method is added in one of three ways: a line below (methods of this repository), an entry point of
the group "ovseg.methods" (methods of another package: name = META_ARCHITECTURE, value = module), or
`register_method` (a script, a notebook, a test).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from types import ModuleType

__all__ = [
    "ENTRY_POINT_GROUP",
    "import_method",
    "known_methods",
    "method_module",
    "register_method",
]

ENTRY_POINT_GROUP = "ovseg.methods"

_OURS = {
    "CorrCLIP": "ovseg.projects.corrclip.model",
    "MaskFormer": "ovseg.modeling.mask_former",
    "OVSeg": "ovseg.modeling.ovseg",
    "OVSegDEMO": "ovseg.modeling.ovseg",
    "PACL": "ovseg.projects.pacl.model",
    "SegCLIP": "ovseg.projects.segclip",
    "PnPOVSS": "ovseg.projects.pnp_ovss.model",
}
_registered: dict[str, str] = {}


def register_method(name: str, module: str) -> None:
    """Tell where the class of an architecture lives.

    Args:
        name: what configs write as `MODEL.META_ARCHITECTURE`.
        module: full name of the module that registers the class in `META_ARCH_REGISTRY` when it is
            imported; `__name__` in the file of the class itself.

    Raises:
        ValueError: if the name already belongs to another module.
    """
    known = {**_OURS, **_registered}.get(name, module)
    if known != module:
        raise ValueError(
            f"expected a name that is free, got {name!r}, which belongs to {known}; "
            f"{module} must choose another"
        )
    _registered[name] = module


def known_methods() -> dict[str, str]:
    """List every method that a config may name.

    Returns:
        Module by name, sorted; nothing is imported.
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    installed = {point.name: point.module for point in found}
    # Ours last: an installed package cannot put itself in the place of a method of this one.
    return dict(sorted({**installed, **_registered, **_OURS}.items()))


def method_module(name: str) -> str:
    """Find the module of a method.

    Args:
        name: a `MODEL.META_ARCHITECTURE`.

    Returns:
        Full name of the module, which is not imported.

    Raises:
        KeyError: if no such method is known; the message lists those that are.
    """
    if name in _OURS:  # without a search through the installed packages
        return _OURS[name]
    known = known_methods()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise KeyError(
            f"unknown method MODEL.META_ARCHITECTURE {name!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"there are: {', '.join(known)}. The module of another one is told by an entry point "
            f"of the group {ENTRY_POINT_GROUP!r} or by ovseg.config.register_method"
        )
    return known[name]


def import_method(name: str) -> ModuleType:
    """Import the module of a method, which registers its class and parts.

    Args:
        name: a `MODEL.META_ARCHITECTURE`.

    Returns:
        The module.

    Raises:
        KeyError: if no such method is known.
        ImportError: if its module cannot be imported.
    """
    return importlib.import_module(method_module(name))
