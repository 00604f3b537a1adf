"""Parameters that Theorems 2.1 and 2.2 of the paper (arXiv 2405.19504) require.

The theorems state their parameters up to constants.  Here the constants of the proofs in appendix A are carried
through, so that every bound holds as written.  docs/reference/theory.md derives each of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..encoders.fde.config import FDEConfig
from ..utils.checks import require_int

__all__ = ["Parameters", "compare", "theorem_2_1", "theorem_2_2"]


@dataclass(frozen=True)
class Parameters:
    """Parameters of an FDE that a theorem requires.

    Parameters
    ----------
    theorem : {"2.1", "2.2"}
        Of arXiv 2405.19504, section 2.1.
    eps, delta : float
        Additive error of NChamfer, and probability of failure.
    num_query_tokens, num_document_tokens : int
        |Q| and the largest |P|.
    num_documents : int or None
        n of Theorem 2.2.
    num_repetitions : int
        R.
    num_simhash_projections : int
        k, of order log(m / delta) / eps as version 1 of the theorem states it.
    any_angle_simhash_projections : int
        k of order log(m / delta) / eps^2, as version 2 states it, without `largest_angle`.
    projection_dimension : int
        p.  If it exceeds the tokens' dimension, the identity is enough.
    largest_angle : float
        Radians within which the best document token of every query token must lie for
        `num_simhash_projections` to be enough.
    """

    theorem: str
    eps: float
    delta: float
    num_query_tokens: int
    num_document_tokens: int
    num_documents: int | None
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
    """Return the parameters for which the product of one pair of FDEs is accurate (Theorem 2.1).

    With these, NChamfer - eps <= <Fq(Q), Fd(P)> / |Q| <= NChamfer + eps, in expectation and
    with probability at least 1 - delta, for any sets of unit vectors whose best tokens lie
    within ``largest_angle``.

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
    >>> required = theorem_2_1(eps=0.1, delta=0.05, num_query_tokens=32, num_document_tokens=150)
    >>> required.num_repetitions, required.num_simhash_projections, required.projection_dimension
    (1, 6201, 27144)
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
        theorem="2.1",
        eps=eps,
        delta=delta,
        num_query_tokens=num_query_tokens,
        num_document_tokens=num_document_tokens,
        num_documents=None,
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
    """Return the parameters for which the document with the largest FDE product is eps-best (Theorem 2.2).

    With these, the document whose FDE has the largest inner product with the query's has an
    NChamfer of at least the best one's minus eps, with probability at least 1 - delta, under
    the same assumption on angles as :func:`theorem_2_1`.

    Parameters
    ----------
    eps : float
        Additive error, above 0 and at most 1.
    delta : float or None
        Probability of failure, between 0 and 1.  None: 1 / n, a "high probability".
    num_query_tokens : int
        |Q|.
    num_document_tokens : int
        Tokens of the longest document.
    num_documents : int
        n.

    Returns
    -------
    muvera.theory.Parameters

    Raises
    ------
    TypeError
        If a number of tokens or documents is not an int.
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> required = theorem_2_2(0.1, None, 32, 150, num_documents=1_000_000)
    >>> required.num_repetitions, required.num_simhash_projections, required.projection_dimension
    (92856, 25898, 441249)
    """
    _require(eps, 0.5 if delta is None else delta, num_query_tokens, num_document_tokens)
    require_int("num_documents", num_documents, 1)
    if delta is None:
        delta = 1 / max(num_documents, 2)
    one = theorem_2_1(eps / 4, 0.1, num_query_tokens, num_document_tokens)
    return Parameters(
        theorem="2.2",
        eps=eps,
        delta=delta,
        num_query_tokens=num_query_tokens,
        num_document_tokens=num_document_tokens,
        num_documents=num_documents,
        num_repetitions=math.ceil(32 * math.log(4 * num_documents / delta) / eps**2),
        num_simhash_projections=one.num_simhash_projections,
        any_angle_simhash_projections=one.any_angle_simhash_projections,
        projection_dimension=one.projection_dimension,
        largest_angle=one.largest_angle,
    )


def compare(config: FDEConfig, parameters: Parameters) -> str:
    """Compare a configuration with the parameters that a theorem requires.

    Parameters
    ----------
    config : FDEConfig
    parameters : Parameters
        Of :func:`theorem_2_1` or :func:`theorem_2_2`.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    TypeError
        If `config` is not an FDEConfig.

    Examples
    --------
    >>> print(compare(FDEConfig.preset("paper", dimension=128), theorem_2_1(0.1, 0.05, 32, 150)))
    Theorem 2.1 for eps=0.1, delta=0.05, 32 query tokens, 150 document tokens:
    - repetitions: 20 here, 1 required: enough.
    - hyperplanes: 5 here, 6,201 required (0.081 % of it), if the best document token lies within
      6.4 degrees of each query token; 124,013 for any angle.
    - projected columns: 16 here, 27,144 required (0.059 % of it); all 128 would do.
    - floats: 10,240 here, 10^1871 required.
    The theorem guarantees nothing for this configuration: measure its recall.
    """
    if not isinstance(config, FDEConfig):
        raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
    exact = config.projection == "identity"
    documents = f", {parameters.num_documents:,} documents" if parameters.num_documents is not None else ""
    columns = _line("projected columns", config.block_width, parameters.projection_dimension)
    departures = _departures(config)
    enough = (
        config.num_repetitions >= parameters.num_repetitions
        and config.num_simhash_projections >= parameters.num_simhash_projections
        and (exact or config.block_width >= parameters.projection_dimension)
        and not departures
    )
    lines = [
        f"Theorem {parameters.theorem} for eps={parameters.eps:g}, delta={parameters.delta:g}, "
        f"{parameters.num_query_tokens:,} query tokens, {parameters.num_document_tokens:,} document tokens{documents}:",
        _line("repetitions", config.num_repetitions, parameters.num_repetitions) + ".",
        _line("hyperplanes", config.num_simhash_projections, parameters.num_simhash_projections)
        + ", if the best document token lies within\n"
        f"  {math.degrees(parameters.largest_angle):.1f} degrees of each query token; "
        f"{parameters.any_angle_simhash_projections:,} for any angle.",
        f"- projected columns: all {config.dimension:,} here, without any error: enough."
        if exact
        else f"{columns}; all {config.dimension:,} would do.",
        f"- floats: {config.vector_dimension:,} here, 10^{parameters.log10_vector_dimension:.0f} required.",
        *(f"- outside the proof: {reason}." for reason in departures),
        "The theorem holds for this configuration."
        if enough
        else "The theorem guarantees nothing for this configuration: measure its recall.",
    ]
    return "\n".join(lines)


def _line(name: str, here: int, required: int) -> str:
    if here >= required:
        return f"- {name}: {here:,} here, {required:,} required: enough"
    return f"- {name}: {here:,} here, {required:,} required ({100 * here / required:.2g} % of it)"


def _departures(config: FDEConfig) -> list[str]:
    """Return the features of a configuration that the proofs do not cover."""
    length = "length 1" if config.document_cells == "unit" else "their tokens' mean length"
    reasons = {
        "empty document cells stay empty, but the proof fills them": not config.fill_empty_partitions,
        "document tokens are centered, so they are not unit vectors": config.center,
        "the document's mean is split off, and its coefficients are fitted": config.split_mean,
        f"the means of cells are scaled to {length}": config.document_cells != "mean",
        "a query token is split between two cells": config.soft_query_cells > 0,
        "orthogonal hyperplanes are not independent, but those of inequality (7) are": config.hyperplanes
        != "gaussian",
        "complementary projections are neither independent nor of +-1 (Fact A.2)": config.projection
        == "complementary",
        "a count sketch is not a dense matrix of +-1 (Fact A.2)": config.projection == "count_sketch",
        "the proof does not cover the final projection": config.final_projection is not None,
    }
    return [reason for reason, applies in reasons.items() if applies]


def _require(eps: float, delta: float, num_query_tokens: int, num_document_tokens: int) -> None:
    if not 0 < eps <= 1:
        raise ValueError(f"eps must be above 0 and at most 1, got {eps}.")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta}.")
    require_int("num_query_tokens", num_query_tokens, 1)
    require_int("num_document_tokens", num_document_tokens, 1)
