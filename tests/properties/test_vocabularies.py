"""Class names of any letters: what is taken, what is refused, and what files give back."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ovseg.vocab import Vocabulary
from ovseg.vocab.class_files import read_class_file
from tests.properties.strategies import TEXTS

LISTS = st.lists(TEXTS, max_size=5)


def usable(name: str) -> bool:
    return not any(unicodedata.category(letter) == "Cc" for letter in name)


@given(names=LISTS)
def test_a_list_of_names_becomes_classes_or_is_refused_with_a_reason(names):
    plain = [unicodedata.normalize("NFC", name).strip() for name in names]
    good = bool(plain) and all(plain) and len(set(plain)) == len(plain) and all(map(usable, plain))
    if not good:
        with pytest.raises(ValueError, match="expected"):
            Vocabulary.make(names)
        return
    made = Vocabulary.make(names)
    assert made.names == tuple(plain) and made.prompts == tuple((name,) for name in plain)
    assert Vocabulary.make(made.names).key == made.key
    assert Vocabulary.make(names[::-1]).names == made.names[::-1]


@given(name=TEXTS.filter(lambda name: usable(name) and name.strip()))
def test_one_name_in_two_forms_of_unicode_is_one_class(name):
    composed, taken_apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert Vocabulary.make([composed]).key == Vocabulary.make([taken_apart]).key
    with pytest.raises(ValueError, match="unique class names"):
        Vocabulary.make([composed, f" {taken_apart}"])


@given(names=LISTS, separator=st.sampled_from([",", ";", "/"]))
def test_synonyms_are_the_parts_of_a_name_each_once(names, separator):
    names = [name for name in names if usable(name) and name.strip()]
    unique = list(dict.fromkeys(unicodedata.normalize("NFC", name).strip() for name in names))
    if not unique:
        return
    made = Vocabulary.make(unique, synonyms=separator)
    for name, strings in zip(made.names, made.prompts, strict=True):
        assert strings and len(set(strings)) == len(strings) and all(strings)
        assert strings == (name,) or set(strings) == {
            part.strip() for part in name.split(separator) if part.strip()
        }


def as_table(names: list[str], delimiter: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([["id", "name"], *enumerate(names)])
    return stream.getvalue()


WRITERS = {
    ".txt": "\n".join,
    ".json": json.dumps,
    ".yaml": lambda names: yaml.safe_dump({"classes": names}, allow_unicode=True),
    ".csv": lambda names: as_table(names, ","),
    ".tsv": lambda names: as_table(names, "\t"),
}


@pytest.mark.parametrize("ending", WRITERS)
@given(names=LISTS)
@example(names=["a\u2028b", "c"])
def test_a_file_of_classes_gives_the_names_back(tmp_path, ending, names):
    names = [unicodedata.normalize("NFC", name).strip() for name in names]
    names = [name for name in names if name and usable(name) and name[0] not in "#\ufeff"]
    path = tmp_path / f"x{ending}"
    path.write_text(WRITERS[ending](names), encoding="utf-8", newline="")
    if names:
        assert read_class_file(path) == names
    else:
        with pytest.raises(ValueError, match="expected"):
            read_class_file(path)
