"""The only prompt templates of the package.

`vild` is the list of Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge
Distillation" (ICLR 2022), as OVSeg uses it; `imagenet` is the list of 80 of Radford et al.,
"Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021), read from
open_clip; `pacl7` is the choice of seven of those in Mukhoti et al., "Open Vocabulary Semantic
Segmentation with Patch Aligned Contrastive Learning" (CVPR 2023), appendix A.2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

SIZES = ("small", "medium", "large")

# The exact punctuation is part of the method: four of these do not end with a full stop.
VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in SIZES),
    *(f"This is a photo of a {size} {{}}." for size in SIZES),
    *(f"There is a {size} {{}} in the scene." for size in SIZES),
)
PREDEFINED = ("a photo of a {}.",)
PACL7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
TEMPLATE_NAMES = ("vild", "imagenet", "predefined", "pacl7")


def templates_by_name(name: str) -> tuple[str, ...]:
    """Look up one of the named template lists.

    Args:
        name: "vild" (14 templates), "imagenet" (80), "predefined" (1) or "pacl7" (7).

    Returns:
        The templates, each with exactly one "{}".

    Raises:
        ValueError: if the name is not one of them.
    """
    if name == "vild":
        return VILD
    if name == "predefined":
        return PREDEFINED
    if name == "pacl7":
        return PACL7
    if name == "imagenet":
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    raise ValueError(
        f"expected the name of a template list, got {name!r}; valid: {', '.join(TEMPLATE_NAMES)}. "
        "Pass a list of strings with one {} each to use your own."
    )


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Check that every template has exactly one place for the class name.

    Args:
        templates: strings such as "a photo of a {}.".

    Returns:
        The templates as a tuple.

    Raises:
        ValueError: if the list is empty or a template has no "{}", or more than one.
    """
    if isinstance(templates, str):
        raise TypeError(f"expected a list of templates, got the single string {templates!r}")
    if not templates:
        raise ValueError("expected at least one template, got an empty list")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(
                f"expected a template with exactly one {{}}, got {template!r}; "
                "write for example 'a photo of a {}.'"
            )
    return tuple(templates)
