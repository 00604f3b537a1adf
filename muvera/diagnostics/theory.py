"""Parameters that Theorems 2.1 and 2.2 of the paper (arXiv 2405.19504) require, and limits of any reduction.

The theorems state their parameters up to constants.  Here the constants of the proofs in the
paper's appendix A are carried through, so that every bound below holds as written.

Throughout, tokens are unit vectors, document cells are filled, m = |Q| + |P|, NChamfer is
Chamfer / |Q|, and L = log(m^2 / (eps * delta)).

Where each constant comes from
------------------------------
Claim A.4, inequality (7).
    A token of P has a Hamming distance from a query token within ``a * k`` of its mean,
    k * angle / pi, except with probability 2 exp(-2 a^2 k) (Hoeffding).  With
    k >= L / (2 a^2), and at most m^2 / 4 pairs of tokens, all pairs keep to it except with
    probability eps * delta / 2.
Displays (8) and (9).
    The token that stands for the best one is then at most 2 pi a further from the query token
    in angle (the paper writes pi sqrt(eps) with a = sqrt(eps); both distances may be off, which
    makes it twice that), and similarity falls by at most
    2 sin(best angle + pi a) sin(pi a).  Half of eps is spent on it.
Fact A.2.
    With p rows of +-1, an inner product of vectors of length at most 1 is off by more than e
    with probability at most 4 exp(-p (e^2 / 4 - e^3 / 6)): Achlioptas' bound for the squared
    lengths of x + y and x - y.  The other half of eps is spent on it, and eps * delta / 2 of
    probability over the same pairs.
Display (11).
    The mean of R variables in [-1, 1] is off by more than t with probability at most
    2 exp(-R t^2 / 2) (Hoeffding), for each of n documents.
Display (12).
    An error of eps / 2 on either side makes eps (the paper's last line has 6 eps for what its
    first two make 4 eps; it rescales eps anyway).

Where the proof of the first version needs care
-----------------------------------------------
Display (8) of version 1 (May 2024) says that an angle of order sqrt(eps) costs a similarity of
order eps, by expanding the cosine at 0.  That holds only where the best document token is itself
within an angle of order sqrt(eps) of the query token.  Elsewhere it costs sqrt(eps), and k must
be of order log(m / delta) / eps^2.  With k of order 1 / eps, the Hamming distances of a best
token that is orthogonal to the query token and of one that is 2 eps worse differ by less than
their spread once eps is below about 1 / (32 L): the worse one is then taken about as often as not.

Version 2 of the paper (arXiv 2405.19504v2, June 2026) corrects the dimension in Theorem 2.1 to
m^O(1 / eps^2).  ``any_angle_simhash_projections`` is that theorem with its constant;
``num_simhash_projections`` is that of version 1, which holds under the angle ``largest_angle``.

The proof of Theorem 2.2 bounds each repetition by 1, which inner projections can break.
Nothing is lost: given the partitions, R projections of p rows are one of R * p independent
rows, off by more than e with probability at most 2 exp(-R p e^2 / (12 + 8 e)) (a Bernstein
bound by the same moments as Achlioptas'), and e = eps / 10 fits beside the other errors.

What no reduction to one vector can do
--------------------------------------
Two papers of 2026 bound from below, as their abstracts state, the floats of any map of token sets
to vectors whose inner products are within eps of NChamfer for all sets of m unit vectors.

arXiv 2606.23475 (Jayaram)
    (eps^2 m)^Omega(1 / eps) floats.
arXiv 2607.20393 (Jayaram, Lin, Mirrokni, Woodruff)
    m^(c / eps^(2 - 2 delta)) floats, c depending on delta, for every fixed delta in (0, 1), small
    eps and m of at least a power of 1 / eps; already for queries of one token, and also for maps
    that depend on the data.  The exponent of Theorem 2.1 is thus nearly the best possible.

So no vectors of a practical size, learned ones included, are good for every collection.  They find
most of the best documents of real ones because real ones are not the worst case: what an encoder
finds must be measured (:func:`muvera.diagnose`).

arXiv 2601.20844
    2 k floats are enough for vectors that reproduce the exact k best of given sets: few floats are no
    obstacle in geometry.  What collections such as LIMIT (arXiv 2508.21038) lack is a map that finds
    such vectors from the tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..encoders.fde.config import FDEConfig
from ..utils.checks import require_int
from .capacity import CellCapacity, cell_capacity

__all__ = ["CellCapacity", "Parameters", "cell_capacity", "compare", "theorem_2_1", "theorem_2_2"]


@dataclass(frozen=True)
class Parameters:
    """Parameters of an FDE that a theorem requires, and what they guarantee.

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
        k of order log(m / delta) / eps^2, as version 2 states it, which needs no `largest_angle`.
    projection_dimension : int
        p.  Where it exceeds the tokens' dimension, the identity is enough.
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
        """Logarithm to base 10 of R * 2^k * p, which is far too large to write out."""
        return (
            math.log10(self.num_repetitions)
            + self.num_simhash_projections * math.log10(2)
            + math.log10(self.projection_dimension)
        )


def theorem_2_1(eps: float, delta: float, num_query_tokens: int, num_document_tokens: int) -> Parameters:
    """Return the parameters that make the estimate of one pair of FDEs good (Theorem 2.1).

    With these, NChamfer - eps <= <Fq(Q), Fd(P)> / |Q| <= NChamfer + eps, in expectation and
    with probability at least 1 - delta, for any sets of unit vectors whose best tokens lie
    within ``largest_angle`` (see the module's text).

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
        k = 4 pi^2 L / eps, from a^2 = eps / (8 pi^2) in (7): then the best token lies within
        pi a = sqrt(eps / 8), and (8) costs at most 4 pi^2 a^2 = eps / 2.
        For any angle k = 8 pi^2 L / eps^2, from a = eps / (4 pi): (8) costs at most
        2 pi a = eps / 2.
        p = log(2 m^2 / (eps delta)) / (e^2 / 4 - e^3 / 6) with e = eps / 2, from Fact A.2.
        R = 1.  In all of them delta counts as at most 1/2: the rare failures cost the
        expectation at most eps * delta, which must fit into eps / 2.

    Raises
    ------
    TypeError
        For a number of tokens that is no int.
    ValueError
        For a value out of its range.

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
    """Return the parameters that make the document of the largest FDE product an eps-best one (Theorem 2.2).

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
        k and p of Theorem 2.1 at eps / 4 and delta = 1/10, as the proof sets it: each
        repetition's expectation is then within 0.15 eps.
        R = 32 log(4 n / delta) / eps^2, from (11) with t = eps / 4 and half of delta.
        The projections take 0.1 eps and the other half.  Together eps / 2, which is (12).

    Raises
    ------
    TypeError
        For a number of tokens or documents that is no int.
    ValueError
        For a value out of its range.

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
    """Return sentences that compare a configuration with the parameters that a theorem requires.

    Parameters
    ----------
    config : FDEConfig
    parameters : Parameters
        Of :func:`theorem_2_1` or :func:`theorem_2_2`.

    Returns
    -------
    str
        Several lines.

    Raises
    ------
    TypeError
        Where `config` is no FDEConfig.

    Examples
    --------
    >>> print(compare(FDEConfig.preset("paper", dimension=128), theorem_2_1(0.1, 0.05, 32, 150)))
    Theorem 2.1 for eps=0.1, delta=0.05, 32 query tokens, 150 document tokens:
    - repetitions: 20 here, 1 required: enough.
    - hyperplanes: 5 here, 6,201 required (0.081 % of it), if the best document token lies within
      6.4 degrees of each query token; 124,013 for any angle.
    - projected columns: 16 here, 27,144 required (0.059 % of it); all 128 would do.
    - floats: 10,240 here, 10^1871 required.
    The theorem promises nothing for this configuration: what it finds must be measured.
    """
    if not isinstance(config, FDEConfig):
        raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
    exact = config.projection == "identity"
    documents = f", {parameters.num_documents:,} documents" if parameters.num_documents is not None else ""
    lines = [
        f"Theorem {parameters.theorem} for eps={parameters.eps:g}, delta={parameters.delta:g}, "
        f"{parameters.num_query_tokens:,} query tokens, {parameters.num_document_tokens:,} document tokens{documents}:",
        _line("repetitions", config.num_repetitions, parameters.num_repetitions) + ".",
        _line("hyperplanes", config.num_simhash_projections, parameters.num_simhash_projections)
        + ", if the best document token lies within\n"
        f"  {math.degrees(parameters.largest_angle):.1f} degrees of each query token; "
        f"{parameters.any_angle_simhash_projections:,} for any angle.",
    ]
    if exact:
        lines.append(f"- projected columns: all {config.dimension:,} here, without any error: enough.")
    else:
        lines.append(
            _line("projected columns", config.block_width, parameters.projection_dimension)
            + f"; all {config.dimension:,} would do."
        )
    lines.append(
        f"- floats: {config.vector_dimension:,} here, 10^{parameters.log10_vector_dimension:.0f} required."
    )
    lines += [f"- outside the proof: {reason}." for reason in _departures(config)]
    enough = (
        config.num_repetitions >= parameters.num_repetitions
        and config.num_simhash_projections >= parameters.num_simhash_projections
        and (exact or config.block_width >= parameters.projection_dimension)
        and not _departures(config)
    )
    lines.append(
        "The theorem holds for this configuration."
        if enough
        else "The theorem promises nothing for this configuration: what it finds must be measured."
    )
    return "\n".join(lines)


def _line(name: str, here: int, required: int) -> str:
    if here >= required:
        return f"- {name}: {here:,} here, {required:,} required: enough"
    return f"- {name}: {here:,} here, {required:,} required ({100 * here / required:.2g} % of it)"


def _departures(config: FDEConfig) -> list[str]:
    """Return what a configuration does that the proofs do not have."""
    reasons = []
    if not config.fill_empty_partitions:
        reasons.append("empty document cells stay empty, and the proof fills them")
    if config.center:
        reasons.append("document tokens are centered, so they are no unit vectors")
    if config.split_mean:
        reasons.append("the document's mean is split off, and the blocks have learned coefficients")
    if config.document_cells != "mean":
        reasons.append(
            "cells' means are scaled to length 1"
            if config.document_cells == "unit"
            else "cells' means are scaled to their tokens' mean length"
        )
    if config.soft_query_cells:
        reasons.append("a query token is shared between two cells")
    if config.hyperplanes != "gaussian":
        reasons.append("orthogonal hyperplanes are not independent, as inequality (7) has them")
    if config.projection == "complementary":
        reasons.append("complementary projections are not independent, and not of +-1 (Fact A.2)")
    if config.projection == "count_sketch":
        reasons.append("a count sketch is no dense matrix of +-1 (Fact A.2)")
    if config.final_projection is not None:
        reasons.append("the final projection comes after what the proof bounds")
    return reasons


def _require(eps: float, delta: float, num_query_tokens: int, num_document_tokens: int) -> None:
    if not 0 < eps <= 1:
        raise ValueError(f"eps must be above 0 and at most 1, got {eps}.")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta}.")
    require_int("num_query_tokens", num_query_tokens, 1)
    require_int("num_document_tokens", num_document_tokens, 1)
