from __future__ import annotations

import pytest

from ovseg.clip import load, released
from ovseg.clip.released import released_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(released, "download_pretrained", lambda cfg: cfg["hf_hub"] + "file")


def test_a_tag_leads_to_its_file():
    file = released_weights("ViT-B-16-quickgelu", "metaclip_fullcc")
    assert file.as_posix() == "timm/vit_base_patch16_clip_224.metaclip_2pt5b/file"
    assert released_weights("ViT-B/16", "openai").name == "file"  # OpenAI's own name
    assert "laion" in str(released_weights("ViT-H-14", "laion2b_s32b_b79k"))


@pytest.mark.parametrize("tag", ["openai", "metaclip_fullcc", "dfn2b"])
def test_weights_trained_with_quickgelu_are_refused_for_a_model_without(tag):
    with pytest.raises(ValueError, match=f"QuickGELU, which {tag} .*; write 'ViT-B-16-quickgelu'"):
        released_weights("ViT-B-16", tag)


def test_an_unknown_tag_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match=r"got 'metaclip'; open_clip has: .*metaclip_fullcc"):
        released_weights("ViT-B-16-quickgelu", "metaclip")
    with pytest.raises(ValueError, match="open_clip has: none"):
        released_weights("ViT-B-17", "openai")


def test_load_clip_takes_a_tag_in_place_of_a_file(monkeypatch):
    asked = []
    monkeypatch.setattr(load, "load_clip_state", lambda file: asked.append(str(file)) or {})
    monkeypatch.setattr(load, "load_strict", lambda *args, **options: None)
    load.load_clip("ViT-B-16-quickgelu", "open_clip:metaclip_fullcc")
    assert asked == ["timm/vit_base_patch16_clip_224.metaclip_2pt5b/file"]
