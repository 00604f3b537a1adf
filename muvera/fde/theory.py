"""Parameters that Theorems 2.1 and 2.2 of the paper (arXiv 2405.19504) require.

The theorems state their parameters up to constants.  Here the constants of the proofs
in appendix A are carried through, so that every bound holds as written.
docs/reference/theory.md derives each of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..utils.checks import require_int

__all__ = ["Parameters", "theorem_2_1", "theorem_2_2"]


@dataclass(frozen=True)
class Parameters:
    """Parameters of an FDE that a theorem requires.

    Parameters
    ----------
    num_repetitions : int
        R.
    num_simhash_projections : int
        k, of order log(m / delta) / eps as version 1 of the theorem states it.
    any_angle_simhash_projections : int
        k of order log(m / delta) / eps^2, as version 2 states it, without a condition
        on angles.
    projection_dimension : int
        p.  If it exceeds the tokens' dimension, the identity is enough.
    largest_angle : float
        Radians within which the best document token of every query token must lie for
        `num_simhash_projections` to be enough.
    """

    num_repetitions: int
    num_simhash_projections: int
    any_angle_simhash_projections: int
    projection_dimension: int
    largest_angle: float

    @property
    def log10_vector_dimension(self) -> float:
        """Logarithm to base 10 of R * 2^k * p."""
        return (
            math.log10(self.num_repetitions)
            + self.num_simhash_projections * math.log10(2)
            + math.log10(self.projection_dimension)
        )


def theorem_2_1(eps: float, delta: float, num_query_tokens: int, num_document_tokens: int) -> Parameters:
    """Return the parameters for an accurate product of one pair of FDEs (Theorem 2.1).

    Then, in expectation and with probability at least 1 - delta,

        NChamfer - eps <= <F_q(Q), F_doc(P)> / |Q| <= NChamfer + eps.

    This holds for any sets of unit vectors whose best tokens lie within
    ``largest_angle``.

    Parameters
    ----------
    eps : float
        Additive error, above 0 and at most 1.
    delta : float
        Probability of failure, between 0 and 1.
    num_query_tokens, num_document_tokens : int
        |Q| and |P|.

    Returns
    -------
    muvera.theory.Parameters

    Raises
    ------
    TypeError
        If a number of tokens is not an int.
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> required = theorem_2_1(0.1, 0.05, num_query_tokens=32, num_document_tokens=150)
    >>> required.num_repetitions, required.num_simhash_projections
    (1, 6201)
    >>> required.projection_dimension
    27144
    >>> required.any_angle_simhash_projections
    124013
    >>> round(required.log10_vector_dimension)
    1871
    """
    _require(eps, delta, num_query_tokens, num_document_tokens)
    tokens = num_query_tokens + num_document_tokens
    failure = eps * min(delta, 0.5)
    spread = math.log(tokens**2 / failure)
    half = eps / 2
    return Parameters(
        num_repetitions=1,
        num_simhash_projections=math.ceil(4 * math.pi**2 * spread / eps),
        any_angle_simhash_projections=math.ceil(8 * math.pi**2 * spread / eps**2),
        projection_dimension=math.ceil(math.log(2 * tokens**2 / failure) / (half**2 / 4 - half**3 / 6)),
        largest_angle=math.sqrt(eps / 8),
    )


def theorem_2_2(
    eps: float,
    delta: float | None,
    num_query_tokens: int,
    num_document_tokens: int,
    num_documents: int,
) -> Parameters:
    """Return the parameters for an eps-best nearest neighbor by FDEs (Theorem 2.2).

    Consider the document whose FDE has the largest inner product with the query's FDE.
    With probability at least 1 - delta, its NChamfer is at least the largest NChamfer
    of any document minus eps.  :func:`theorem_2_1` has the same assumption on angles.

    Parameters
    ----------
    eps : float
        As for :func:`theorem_2_1`.
    delta : float or None
        Probability of failure, between 0 and 1.  None: 1 / n, a "high probability".
    num_query_tokens : int
        As for :func:`theorem_2_1`.
    num_document_tokens : int
        Tokens of the longest document.
    num_documents : int
        n.

    Returns
    -------
    muvera.theory.Parameters

    Raises
    ------
    TypeError, ValueError
        As for :func:`theorem_2_1`.

    Examples
    --------
    >>> required = theorem_2_2(0.1, None, 32, 150, num_documents=1_000_000)
    >>> required.num_repetitions, required.num_simhash_projections
    (92856, 25898)
    >>> required.projection_dimension
    441249
    """
    _require(eps, 0.5 if delta is None else delta, num_query_tokens, num_document_tokens)
    require_int("num_documents", num_documents, 1)
    if delta is None:
        delta = 1 / max(num_documents, 2)
    single = theorem_2_1(eps / 4, 0.1, num_query_tokens, num_document_tokens)
    return replace(single, num_repetitions=math.ceil(32 * math.log(4 * num_documents / delta) / eps**2))


def _require(eps: float, delta: float, num_query_tokens: int, num_document_tokens: int) -> None:
    if not 0 < eps <= 1:
        raise ValueError(f"eps must be above 0 and at most 1, got {eps}.")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta}.")
    require_int("num_query_tokens", num_query_tokens, 1)
    require_int("num_document_tokens", num_document_tokens, 1)
