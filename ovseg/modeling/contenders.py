"""Which of many classes can win a pixel at all.

At a pixel the score of class k is the sum over masks of m_q s_qk with m_q >= 0. Let J be the
classes that lead some mask. Where s_qk < mean_{j in J} s_qj holds for every mask q, the score of k
is below the mean of the leaders' scores everywhere, hence below one of them, and k wins no pixel.
With words by the thousand most are so: no proposal comes near them.
"""

from __future__ import annotations

from torch import Tensor

# Products and sums of the scores are rounded; a bound closer than this decides nothing.
_MARGIN = 1e-4


def contenders(scores: Tensor) -> Tensor:
    """Find the classes that can have the highest score at some pixel.

    Args:
        scores: (Q, K) of at least 0.

    Returns:
        (C,) int64, ascending indices of the classes that the bound does not exclude. The first
        class is always there, as the one that has pixels without any score.
    """
    scores = scores.float()
    leaders = scores.argmax(1).unique()  # (J,)
    bound = (1 - _MARGIN) * scores[:, leaders].mean(1, keepdim=True)  # (Q, 1)
    kept = (scores > bound).any(0)  # (K,)
    kept[leaders] = True
    kept[:1] = True
    return kept.nonzero()[:, 0]
