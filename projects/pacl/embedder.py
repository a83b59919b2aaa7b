"""The one part of PACL that is trained: from a patch's token to the space of the texts.

Source: Mukhoti et al., CVPR 2023, appendix A.1: a residual block whose two branches are added.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "PatchEmbedder"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class PatchEmbedder(nn.Module):
    """Maps each token by itself, the same way.

    With 768 channels in and 512 out it has 1,050,112 parameters, the paper's 1.1 million.

    Args:
        in_dim: channels of a token.
        out_dim: channels of a text's feature.
        hidden_dim: channels inside the main branch; None takes `out_dim`.
        activation: a name in `ACTIVATIONS`.

    Raises:
        ValueError: no such activation.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, hidden_dim: int | None = None, activation: str = "relu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"MODEL.PACL.ACT: expected one of {sorted(ACTIVATIONS)}, got {activation!r}"
            )
        hidden_dim = out_dim if hidden_dim is None else hidden_dim
        self.main = nn.Sequential(
            nn.Linear(in_dim, hidden_dim), ACTIVATIONS[activation](), nn.Linear(hidden_dim, out_dim)
        )
        self.skip = nn.Linear(in_dim, out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds tokens.

        Args:
            tokens: (..., in_dim).

        Returns:
            (..., out_dim), of any length.
        """
        return self.main(tokens) + self.skip(tokens)
