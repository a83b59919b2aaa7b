"""Config node and the decorator that lets a constructor take one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode as _FvcoreCfgNode

from ovseg.d2._lite.defaults import DEFAULTS

__all__ = ["CfgNode", "configurable", "get_cfg"]


class CfgNode(_FvcoreCfgNode):
    """Nested settings with attribute access, YAML files and `_BASE_` inheritance.

    Unlike Detectron2's, files are always read as safe YAML.
    """


def get_cfg() -> CfgNode:
    """Return a fresh, mutable config holding the default of every key.

    Returns:
        A config node that shares nothing with earlier ones.
    """
    return CfgNode(DEFAULTS).clone()


def configurable(
    init_func: Callable[..., Any] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Let a constructor or function be called either with its arguments or with a config.

    As `@configurable` on `__init__`, the class must have a classmethod `from_config(cfg, ...)`
    that returns the constructor's arguments. As `@configurable(from_config=f)` on a function,
    `f(cfg, ...)` returns the function's arguments.

    Args:
        init_func: the `__init__` being decorated.
        from_config: for functions, what turns a config into arguments.

    Returns:
        The decorated callable.

    Raises:
        TypeError: if used on something else than `__init__`, or `from_config` is not callable.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or init_func.__name__ != "__init__" or from_config:
            raise TypeError(
                "@configurable without arguments decorates __init__ only; for a function write "
                "@configurable(from_config=...)"
            )
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config):
        raise TypeError(f"from_config must be a function, got {type(from_config).__name__}")
    return functools.partial(_configurable_function, from_config=from_config)


def _configurable_init(init_func: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init_func)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if not _called_with_cfg(args, kwargs):
            init_func(self, *args, **kwargs)
            return
        from_config = getattr(type(self), "from_config", None)
        if not inspect.ismethod(from_config):
            raise TypeError(
                f"{type(self).__name__} was built from a config and must have a classmethod "
                "from_config(cls, cfg, ...)"
            )
        init_func(self, **_arguments_from_config(from_config, args, kwargs))

    return wrapped


def _configurable_function(
    function: Callable[..., Any], *, from_config: Callable[..., dict[str, Any]]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not _called_with_cfg(args, kwargs):
            return function(*args, **kwargs)
        return function(**_arguments_from_config(from_config, args, kwargs))

    wrapped.from_config = from_config  # type: ignore[attr-defined]
    return wrapped


def _called_with_cfg(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first = args[0] if args else kwargs.get("cfg")
    return isinstance(first, _FvcoreCfgNode)


def _arguments_from_config(
    from_config: Callable[..., dict[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Call `from_config` with what it accepts; the rest overrides what it returned."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"the first argument of {from_config.__qualname__} must be called 'cfg'")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(p.kind in variadic for p in parameters.values()):
        return from_config(*args, **kwargs)
    accepted = {name: value for name, value in kwargs.items() if name in parameters}
    arguments = dict(from_config(*args, **accepted))
    arguments.update({n: v for n, v in kwargs.items() if n not in parameters})
    return arguments
