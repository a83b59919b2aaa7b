"""Weight files in and out: one reader for every container, a strict loader, a safe writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ovseg.readers.digests import DIGEST, content_digest
from ovseg.readers.weight_files import UNREADABLE, read_weight_file, weight_file_kind
from ovseg.utils.files import atomic_path, naming_failure

CONTAINER_KEYS = ("model", "state_dict")
DDP_PREFIX = "module."
MAX_LISTED = 20


class WeightsError(ValueError):
    """A weight file that cannot be read, or that does not fit the model."""


def read_state_dict(path: str | Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a weight file; the format is told from the content.

    Reads safetensors, files of `torch.save` (nothing is unpickled), TorchScript archives (their
    code is not run) and, if asked to, pickles of NumPy arrays. A `{"model": ...}` or
    `{"state_dict": ...}` around the tensors and the prefix "module." of DistributedDataParallel are
    taken off.

    Args:
        path: the file.
        allow_pickle: read plain pickles (.pkl), too; only arrays, tensors and containers are
            accepted in them.

    Returns:
        The tensors by name, on the CPU, in the file's dtypes.

    Raises:
        WeightsError: if there is no such file, or it is not a weight file, or not a safe one.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"expected a weight file at {path}, but there is none")
    return unwrap(_read(path, allow_pickle=allow_pickle), source=str(path))


def read_names(path: str | Path) -> list[str]:
    """List the names in a weight file, in most formats without reading the tensors.

    Args:
        path: the file.

    Returns:
        The names as `read_state_dict` gives them.

    Raises:
        WeightsError: see `read_state_dict`.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"expected a weight file at {path}, but there is none")
    return list(unwrap(_read(path, allow_pickle=False, values=False), source=str(path)))


def as_state_dict(
    state_or_path: Mapping[str, Tensor] | str | Path, *, allow_pickle: bool = False
) -> dict[str, Tensor]:
    """Read a weight file, or unwrap a state dict.

    Args:
        state_or_path: a state dict, with or without a {"model": ...} around it, or a file.
        allow_pickle: see `read_state_dict`.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: see `read_state_dict` and `unwrap`.
    """
    if isinstance(state_or_path, (str, Path)):
        return read_state_dict(state_or_path, allow_pickle=allow_pickle)
    return unwrap(state_or_path, source="the state dict")


def unwrap(content: Any, *, source: str) -> dict[str, Tensor]:
    """Take the container and the DistributedDataParallel prefix off a state dict.

    Args:
        content: a state dict, or a dict that holds one under "model" or "state_dict"; its values
            are tensors or NumPy arrays.
        source: what to call it in an error.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: if it is no dict, or a value is not a tensor.
    """
    for key in CONTAINER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"expected a dict of tensors in {source}, got {type(content).__name__}; save "
            "model.state_dict()"
        )
    if not content:
        raise WeightsError(f"expected tensors in {source}, got an empty state dict")
    odd = [key for key in content if not isinstance(key, str)]
    if odd:
        raise WeightsError(
            f"expected tensors by name in {source}, got a key that is {type(odd[0]).__name__}"
        )
    bad = [key for key, value in content.items() if not _is_tensor(value)]
    if bad:
        kinds = f"{bad[0][:100]!r} is {type(content[bad[0]]).__name__}"
        raise WeightsError(
            f"expected a dict of tensors in {source}, but {len(bad)} of {len(content)} values are "
            f"not ({kinds}); valid containers: {', '.join(map(repr, CONTAINER_KEYS))} or the state "
            "dict itself"
        )
    prefixed = all(key.startswith(DDP_PREFIX) for key in content)
    return {
        key.removeprefix(DDP_PREFIX) if prefixed else key: (
            value if isinstance(value, Tensor) else torch.tensor(value)
        )
        for key, value in content.items()
    }


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file; the file appears complete or not at all.

    The same tensors and metadata give the same bytes, whatever the order of either. A digest of
    both goes with them (metadata "ovseg_digest"), with which `read_state_dict` compares them.

    Args:
        path: the target; an existing file is replaced.
        tensors: by name; tensors that share memory are written apart.
        metadata: strings to store in the file's header.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    texts = {key: text for key, text in (metadata or {}).items() if key != DIGEST}
    with naming_failure(path), atomic_path(path) as temporary:
        texts[DIGEST] = content_digest({"tensors": plain, "metadata": texts})
        safetensors.torch.save_file(plain, temporary, metadata=texts)
        _sort_metadata(Path(temporary))


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file into order; the library leaves it to chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # a longer one would move the tensors; the order then stays
            file.seek(8)
            file.write(text.ljust(size))


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], *, recomputable: Sequence[str] = ()
) -> None:
    """Load a state dict that must fit exactly; on an error the module is left as it was.

    Args:
        module: the target.
        state: tensors by name; floating-point ones are cast to the module's dtype.
        recomputable: patterns (as in fnmatch) of names that may be missing, because the module
            computes them itself.

    Raises:
        WeightsError: if a name is missing or unexpected or a shape differs; the message lists them.
    """
    expected = module.state_dict()
    absent = [name for name in expected if name not in state]
    missing = [n for n in absent if not any(fnmatch(n, pattern) for pattern in recomputable)]
    unexpected = [name for name in state if name not in expected]
    wrong = [
        f"{name}: expected {_describe(expected[name])}, got {_describe(tensor)}"
        for name, tensor in state.items()
        if name in expected and not _fits(tensor, expected[name])
    ]
    if missing or unexpected or wrong:
        raise WeightsError(
            f"the weights do not fit {type(module).__name__} ({len(expected)} tensors):"
            + _listing("missing", missing)
            + _listing("unexpected", unexpected)
            + _listing("wrong shape", wrong)
            + "\ncheck that the configuration is the one that the weights were made with"
        )
    module.load_state_dict(dict(state), strict=False)


def require_finite(module: nn.Module, *, source: str) -> None:
    """Refuse weights with which a model cannot answer.

    Args:
        module: the model that holds them.
        source: where they come from, for the error.

    Raises:
        WeightsError: a parameter holds NaN or infinity, or a buffer NaN; the text names them. A
            buffer may hold infinity, as masks of attention do.
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    odd = []
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        least, most = torch.aminmax(tensor.detach())  # both NaN if a value is
        if torch.isnan(least) or (
            name in parameters and torch.isinf(torch.stack((least, most))).any()
        ):
            odd.append(f"{name}: from {least.item():g} to {most.item():g}")
    if odd:
        raise WeightsError(
            f"expected finite weights in {source}, got NaN or infinity in {len(odd)} tensors:"
            + _listing("not finite", odd)
            + "\nthe file is damaged, or its training diverged; take an earlier checkpoint"
        )


def _read(path: Path, *, allow_pickle: bool, values: bool = True) -> Any:
    kind = "a weight file"
    try:
        kind = weight_file_kind(path)
        if kind != "unknown" and (kind != "pickle" or allow_pickle):
            return read_weight_file(path, kind, values=values)
    except (OSError, *UNREADABLE) as error:
        raise WeightsError(
            f"expected tensors and plain containers in {path}, but it cannot be read as "
            f"{kind}: {error or type(error).__name__}"
        ) from error
    if kind == "pickle":
        raise WeightsError(
            f"{path} is a pickle; pickles are read only on request: convert it once with "
            "`tools/convert_weights.py --allow-pickle`"
        )
    raise WeightsError(
        f"expected a weight file, got {path}, which is none; valid: safetensors, torch.save, "
        "TorchScript, or a pickle of arrays. An interrupted download or a web page saved under "
        "this name look like this"
    )


def _is_tensor(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf" and value.dtype.isnative
    return isinstance(value, Tensor)


def _fits(tensor: Tensor, target: Tensor) -> bool:
    return tensor.shape == target.shape and tensor.is_floating_point() == target.is_floating_point()


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _listing(title: str, lines: Iterable[str]) -> str:
    lines = list(lines)
    if not lines:
        return ""
    shown = "".join(f"\n    {line}" for line in lines[:MAX_LISTED])
    more = f"\n    ... and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
    return f"\n  {title} ({len(lines)}):{shown}{more}"
