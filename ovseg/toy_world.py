"""The world of the bundled models, and a note for who shows them something else."""

from __future__ import annotations

from ovseg.weights import catalogue

__all__ = ["TOY_SIZES", "toy_world_note"]

TOY_SIZES = ((128, 128), (128, 160), (160, 128))
"""Height and width of the scenes of tinyscapes."""


def toy_world_note(weights: str | None, size: tuple[int, ...]) -> str | None:
    """Say that a picture is not of the world that the bundled models know.

    The rule is the picture's size alone: scenes of tinyscapes have one of three. A photograph of
    such a size goes unnoticed, a scene that was enlarged does not.

    Args:
        weights: name of the weights, as the catalogue calls them.
        size: height and width of the picture.

    Returns:
        The note; None for other weights, and for a picture of a scene's size.
    """
    if weights not in catalogue.BUNDLED or size in TOY_SIZES:
        return None
    height, width = size
    return (
        f"{weights} knows the drawn scenes of tinyscapes (128 to 160 pixels a side) and nothing "
        f"else; this picture has {width} x {height} pixels, so what it finds may mean nothing. "
        'For photographs load a released checkpoint, such as "ovseg_swinB" (README, Python)'
    )
