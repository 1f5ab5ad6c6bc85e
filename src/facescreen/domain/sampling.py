"""Drawing without putting back."""

import numpy as np
from numpy.typing import NDArray


def chance_of_any(total: int, drawn: int, near: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability that ``drawn`` of ``total`` things hold one of ``near`` certain ones, for each of these numbers.

    All are missed with ``C(n - k, m) / C(n, m)``: the product of ``1 - drawn / left`` over them, ``left`` being how
    many were not passed yet.
    """
    left = total - np.arange(near.max(initial=0), dtype=np.float64)
    with np.errstate(divide="ignore"):  # the logarithm of 0: so many cannot all be missed
        missed = np.log1p(-np.minimum(drawn / left, 1.0))
    chances: NDArray[np.float64] = -np.expm1(np.concatenate(([0.0], np.cumsum(missed))))
    return chances[near]
