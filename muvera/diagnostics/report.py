"""A diagnosis in plain words: the measures, what they mean, and what to do."""

from __future__ import annotations

import textwrap

from .diagnosis import Diagnosis, MeasuredRecall

__all__ = ["render"]

_WIDTH = 96

_KINDS = {
    "ordinary": "The geometry is ordinary: tokens point in many directions, and cells tell them apart.",
    "wide cone": (
        "Tokens share a direction (a wide cone): many fall on the same side of a hyperplane through the "
        "origin. Centering puts the hyperplanes among them."
    ),
    "narrow cone": (
        "Tokens lie in a narrow cone: they differ little from their mean, and hyperplanes through the "
        "origin hardly tell them apart. Use a configuration with center=True, as the default is."
    ),
}


def render(found: Diagnosis) -> str:
    """Return `found` as lines for people."""
    return "\n".join([*_measures(found), "", *_recall(found), "", *_advice(found)])


def _measures(found: Diagnosis) -> list[str]:
    shape, lengths, spread = found.geometry, found.tokens_per_document, found.maxsim
    least, mean, greatest = shape.norms
    norms = "unit" if shape.unit else "not unit"
    zero = f", {shape.zero_tokens:,} zero vectors" if shape.zero_tokens else ""
    plain, centered = found.cells, found.centered_cells
    source = "windows of document tokens" if found.pseudo else "given"
    lines = [
        f"documents      {found.documents:,}, of which {found.empty_documents:,} without tokens; "
        f"{found.sampled_documents:,} measured",
        f"tokens         {found.tokens:,} of {shape.dimension} dimensions; a document has "
        f"{lengths['min']:.0f} / {lengths['median']:.0f} / {lengths['p95']:.0f} / {lengths['max']:.0f} "
        "(min / median / p95 / max)",
        f"queries        {found.queries:,}, {source}, {found.query_tokens:.0f} tokens (median)",
        f"norms          {least:.3f} / {mean:.3f} / {greatest:.3f} (min / mean / max): {norms}{zero}",
        f"mean cosine    {shape.mean_cosine:.3f} of token pairs, standard deviation "
        f"{shape.cosine_deviation:.3f}",
        f"mean token     {shape.mean_norm:.3f} of a token's norm",
        f"dimensions     {shape.effective_rank:.1f} of {shape.dimension} in use (participation ratio), "
        f"{shape.centered_effective_rank:.1f} after centering",
        f"MaxSim         {spread.best:.3f} / {spread.tenth:.3f} / {spread.median:.3f} a query token "
        "(best / 10th / median document)",
        f"cells          {plain.effective_cells:.1f} of {plain.cells} in effect, "
        f"{centered.effective_cells:.1f} after centering; "
        f"a document uses {plain.used_per_document:.0%} and {centered.used_per_document:.0%}",
    ]
    if found.query_cosine is not None:
        lines.insert(5, f"query cosine   {found.query_cosine:.3f} of query tokens with document tokens")
    return lines


def _recall(found: Diagnosis) -> list[str]:
    if all(value is None for row in found.recall for value in row.recall.values()):
        count = found.sampled_documents
        return [f"recall         not measured: {count} documents are too few, it takes 20 or more"]
    depths = list(found.recall[0].recall)
    wide = max(13, *(len(row.name) for row in found.recall))
    title = "exact top 10 in" + "".join(f"{f'@{depth}':>8}" for depth in depths) + "    floats"
    lines = [f"{'recall':<{wide}}  {title}"]
    for row in found.recall:
        values = "".join(f"{'-' if value is None else f'{value:.3f}':>8}" for value in row.recall.values())
        lines.append(f"{row.name:<{wide}}  {'':15}{values}{row.config.vector_dimension:>10,}")
    return lines


def _advice(found: Diagnosis) -> list[str]:
    sentences = [
        _KINDS[found.kind],
        _centering(found),
        _norms(found),
        _odd(found),
        _use(found),
        _expect(found),
        _learned(found),
    ]
    if found.config.compact_dimension is not None:
        sentences.append(
            "The compact maps were learned from the very documents that are measured: of others they find "
            "less."
        )
    if found.pseudo:
        sentences.append(
            "These queries are windows of document tokens, each without its own document. They stand in for "
            "real ones and may be easier, above all where the model treats queries in a way of their own: "
            "on three collections they found between .02 less and .05 more at 50 candidates. Give real "
            "queries to be sure."
        )
    lines: list[str] = []
    for sentence in sentences:
        if sentence:
            lines.extend(textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  "))
    return lines


def _centering(found: Diagnosis) -> str:
    paper, best = found.recall[0].recall[50], found.recommended.recall[50]
    if paper is None or best is None:
        return ""
    return (
        f"The paper's recipe, which does not center, puts {paper:.0%} of the exact best among 50 candidates; "
        f"the {found.recommended.name} floats {best:.0%}."
    )


def _norms(found: Diagnosis) -> str:
    if found.geometry.unit:
        return ""
    return (
        "Norms are not 1: a long token counts for more in every score. If the model was trained with cosine "
        "similarity, normalize (muvera convert --normalize); else leave them."
    )


def _is_odd(found: Diagnosis) -> bool:
    """Whether FDEs find less than half of what chance would leave out at 50 candidates."""
    value, chance = found.recommended.recall[50], 50 / found.sampled_documents
    return value is not None and value - chance < 0.5 * (1 - chance)


def _odd(found: Diagnosis) -> str:
    if not _is_odd(found):
        return ""
    spread = found.maxsim
    return (
        f"FDEs find few of the exact best here, whose MaxSim ({spread.best:.3f}) hardly stands out from the "
        f"tenth best ({spread.tenth:.3f}) and the median document ({spread.median:.3f}). Search exactly, and "
        "make sure that these are the tokens of a model trained for MaxSim."
    )


def _use(found: Diagnosis) -> str:
    row = found.recommended
    setting = f"FDEConfig(dimension={row.config.dimension}"
    if row.config.num_simhash_projections != 5:
        setting += f", num_simhash_projections={row.config.num_simhash_projections}"
    floats = f"{row.config.vector_dimension:,} floats"
    if found.exact:
        return (
            f"With {found.tokens:,} tokens an index reads them all and is exact: no FDE is needed. "
            f"Should the collection grow: {setting}), {floats}."
        )
    if row.recall[50] is None:
        return f"Start from {setting}), {floats}, and diagnose again with more documents."
    other = next(each for each in found.recall[1:3] if each is not row)
    return f"Use {setting}), {floats}: {_against(row, other)}."


def _against(row: MeasuredRecall, other: MeasuredRecall) -> str:
    mine, theirs = row.recall[50] or 0.0, other.recall[50] or 0.0
    size = f"{other.config.vector_dimension:,} floats"
    if row.config.vector_dimension < other.config.vector_dimension:
        return f"at 50 candidates they find {mine:.1%}, and {size} {theirs:.1%}"
    return f"at 50 candidates they find {mine:.1%}, and {size} only {theirs:.1%}"


def _learned(found: Diagnosis) -> str:
    if found.exact or _is_odd(found):
        return ""
    return (
        "Learned vectors (LearnedConfig, muvera index --preset learned) are not measured here, for they take "
        "longer to fit: far fewer floats mostly find more, the narrower the cone the more so. muvera tune "
        "measures them on these documents."
    )


def _expect(found: Diagnosis) -> str:
    row = found.recommended
    measured = {depth: value for depth, value in row.recall.items() if value is not None}
    if not measured or found.exact or _is_odd(found):
        return ""
    enough = next((depth for depth, value in measured.items() if value >= 0.95), None)
    if enough is None:
        deepest = max(measured)
        start = (
            f"Expect {measured[deepest]:.0%} of the exact 10 best from {deepest} candidates: rerank more, "
            "or take num_repetitions=40, which doubles the size"
        )
    else:
        start = f"Expect {measured[enough]:.0%} of the exact 10 best from {enough} candidates"
    if found.documents > found.sampled_documents:
        start += (
            f". That is among {found.sampled_documents:,} documents: among all {found.documents:,} "
            "the same number finds less, so rerank more"
        )
    return start + "."
