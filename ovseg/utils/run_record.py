"""What the results in a folder were made with, so that no other run is mixed into them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.readers.documents import read_json
from ovseg.utils.files import write_json

__all__ = ["AnotherRunError", "RunRecord", "changed_settings"]

_LONGEST_VALUE = 80


class AnotherRunError(ValueError):
    """The folder holds a run with other settings than the one that was to go on in it."""


@dataclass(frozen=True)
class RunRecord:
    """The settings of a run, to be kept in the folder of its results and compared there.

    Attributes:
        settings: all that the results depend on, as plain data that JSON can hold.
        what: the kind of run in a few words, for the message: "mining run".
        remedy: what to do about another run in the folder, for the message.
        free: dotted names of settings that may differ, along with all below them.
        error: what is raised about another run.
    """

    settings: Mapping[str, Any]
    what: str
    remedy: str
    free: Collection[str] = ()
    error: type[AnotherRunError] = AnotherRunError

    def claim(self, path: str | Path) -> None:
        """Write the record, or compare the one that is there.

        Several processes of a run may do so at once, since all write the same.

        Args:
            path: the record's JSON file in the run's folder.

        Raises:
            AnotherRunError: there is another run's record, or a file that is no record.
        """
        path = Path(path)
        if not path.exists():
            write_json(path, self.settings, sort_keys=True)
        try:
            found = read_json(path)
        except ValueError as error:
            raise self.error(
                f"{path}: expected the settings of a {self.what}, got no JSON ({error}); "
                f"{self.remedy}"
            ) from error
        self.check(found, path.parent)

    def check(self, found: Any, where: str | Path) -> None:
        """Compare settings that were kept in some other form.

        Args:
            found: the settings, as a mapping; anything else is none of this run's.
            where: folder or file that they are of, for the message.

        Raises:
            AnotherRunError: they are another run's.
        """
        changed = changed_settings(found, self.settings, free=self.free)
        if changed:
            changes = "; ".join(
                f"{name or 'all'}: {_shortened(before)} -> {_shortened(now)}"
                for name, (before, now) in changed.items()
            )
            raise self.error(
                f"{where}: expected this same {self.what}, got one with other settings "
                f"(there -> here): {changes}. To go on, {self.remedy}"
            )


def changed_settings(
    before: Any, now: Any, *, free: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """List the settings that differ between two runs.

    Tuples are lists and keys are texts, as in JSON. A setting that one side lacks is None there.

    Args:
        before: plain data; mappings are compared key by key.
        now: plain data.
        free: dotted names that may differ, along with all below them.

    Returns:
        Value before and value now by dotted name, sorted; under "" where a side is no mapping.
    """
    before, now = json.loads(json.dumps([before, now]))
    return _changed(before, now, frozenset(free), "")


def _changed(before: Any, now: Any, free: frozenset[str], name: str) -> dict[str, tuple[Any, Any]]:
    if name in free:
        return {}
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return {} if before == now else {name: (before, now)}
    changed: dict[str, tuple[Any, Any]] = {}
    for key in sorted(before.keys() | now.keys()):
        below = f"{name}.{key}" if name else key
        changed |= _changed(before.get(key), now.get(key), free, below)
    return changed


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
