"""A diagnosis in sentences: the measures, what they mean, and what to do."""

from __future__ import annotations

import textwrap

from ..utils.wording import counted
from .configurations import GIVEN, PAPER, constructor_call, preset_name
from .diagnosis import Diagnosis, MeasuredEncoder

__all__ = ["render"]

_WIDTH = 96

_ANISOTROPY = {
    "low": "Anisotropy is low: tokens have many directions, and hyperplanes separate them.",
    "medium": (
        "Anisotropy is medium: tokens share a direction, so that many lie on the same side of a hyperplane "
        "through the origin. Centering moves the hyperplanes to the mean token."
    ),
    "high": (
        "Anisotropy is high: tokens differ little from their mean, and hyperplanes through the origin hardly "
        "separate them. An FDE needs center=True here, as the default has."
    ),
}

#: Recall that is called enough.
_ENOUGH = 0.95


def render(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as lines for people."""
    return "\n".join([*_measures(diagnosis), "", *_recall(diagnosis), "", *_advice(diagnosis)])


def _measures(found: Diagnosis) -> list[str]:
    shape, lengths, spread = found.geometry, found.tokens_per_document, found.maxsim
    least, mean, greatest = shape.norms
    norms = "unit" if shape.unit_norms else "not unit"
    zero = f", {counted(shape.zero_tokens, 'zero vector')}" if shape.zero_tokens else ""
    plain, centered = found.cells, found.centered_cells
    source = "windows of document tokens" if found.pseudo_queries else "given"
    lines = [
        f"documents      {found.documents:,}, of which {found.empty_documents:,} without tokens; "
        f"{found.sampled_documents:,} measured",
        f"tokens         {found.tokens:,} of {counted(shape.dimension, 'dimension')}; a document has "
        f"{lengths['min']:.0f} / {lengths['median']:.0f} / {lengths['p95']:.0f} / {lengths['max']:.0f} "
        "(min / median / p95 / max)",
        f"queries        {found.queries:,}, {source}, {found.query_tokens:.0f} tokens (median)",
        f"norms          {least:.3f} / {mean:.3f} / {greatest:.3f} (min / mean / max): {norms}{zero}",
        f"mean cosine    {shape.mean_cosine:.3f} of token pairs, standard deviation "
        f"{shape.cosine_deviation:.3f}: {found.anisotropy} anisotropy",
        f"mean token     {shape.mean_norm:.3f} of a token's norm",
        f"effective rank {shape.effective_rank:.1f} of {shape.dimension}, "
        f"{shape.centered_effective_rank:.1f} after centering",
        f"MaxSim         {spread.best:.3f} / {spread.tenth:.3f} / {spread.median:.3f} per query token "
        "(best / 10th / median document)",
        f"cells          {plain.effective_cells:.1f} effective of {plain.cells}, "
        f"{centered.effective_cells:.1f} after centering; "
        f"a document uses {plain.used_per_document:.0%} and {centered.used_per_document:.0%}",
    ]
    if found.capacity is not None:
        lines.append(
            f"cell load      {found.tokens_per_cell:.1f} tokens in a used cell; a model of the noise allows "
            f"{found.capacity.largest_load:.1f}"
        )
    if found.intrinsic_dimension is not None:
        local = found.intrinsic_dimension
        lines.append(
            f"intrinsic      {local.overall:.1f} dimensions of the recommended vectors "
            f"({local.mean:.1f} mean, {local.p95:.1f} p95 of the local ones)"
        )
    if found.query_cosine is not None:
        lines.insert(5, f"query cosine   {found.query_cosine:.3f} of query tokens with document tokens")
    return lines


def _recall(found: Diagnosis) -> list[str]:
    if all(value is None for row in found.encoders for value in row.recall.values()):
        count = found.sampled_documents
        return [f"recall         not measured: it needs at least 20 documents, and there are {count}"]
    wide = max(len(row.name) for row in found.encoders)
    cutoffs = "".join(f"{f'@{cutoff}':>8}" for cutoff in found.encoders[0].recall)
    lines = [f"{'recall of the exact 10 best':<{wide + 2}}{cutoffs}    floats"]
    wide = len(lines[0]) - len(cutoffs) - 10
    for row in found.encoders:
        mark = "*" if row == found.recommended else " "
        values = "".join(f"{'-' if value is None else f'{value:.3f}':>8}" for value in row.recall.values())
        lines.append(f"{f'{mark} {row.name}':<{wide}}{values}{row.floats:>10,}")
    return lines


def _advice(found: Diagnosis) -> list[str]:
    sentences = [
        _ANISOTROPY[found.anisotropy],
        _norms(found),
        _load(found),
        _low_recall(found),
        _use(found),
        _expect(found),
        _unmeasured(found),
    ]
    if found.pseudo_queries:
        sentences.append(
            "These queries are windows of document tokens, each without its source document. Real queries "
            "may be harder, above all those of a model that encodes queries in another way: on three "
            "collections the windows' recall at 50 candidates was between .02 lower and .05 higher. Give "
            "real queries to be sure."
        )
    lines: list[str] = []
    for sentence in sentences:
        if sentence:
            lines.extend(textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  "))
    return lines


def _norms(found: Diagnosis) -> str:
    if found.geometry.unit_norms:
        return ""
    return (
        "Norms are not 1: a long token counts for more in every score. If the model was trained with cosine "
        "similarity, normalize (muvera convert --normalize); otherwise leave them."
    )


def _load(found: Diagnosis) -> str:
    """Say what to enlarge where the FDE's cells hold more than they can, and an FDE is to be used."""
    capacity = found.capacity
    if not _fde_is_of_interest(found) or capacity is None or found.tokens_per_cell <= capacity.largest_load:
        return ""
    if capacity.shared_noise >= 0.5:
        remedy = "more cells (num_simhash_projections) reduce it"
    else:
        remedy = "more columns (projection_dimension) or repetitions (num_repetitions) reduce it"
    source = "the tokens that share a cell" if capacity.shared_noise >= 0.5 else "the projections"
    return (
        f"Cells of {found.config.vector_dimension:,} floats hold {found.tokens_per_cell:.1f} tokens, more than "
        f"the {capacity.largest_load:.1f} at which the best tokens stand out. Most of the noise comes from "
        f"{source}: {remedy}."
    )


def _fde_is_of_interest(found: Diagnosis) -> bool:
    """Whether the measured cells belong to what is recommended, or to what the caller gave."""
    chosen = found.recommended.config
    cells_are_used = chosen.kind == found.config.kind
    return cells_are_used or any(row.name == GIVEN for row in found.encoders)


def _recall_is_low(found: Diagnosis) -> bool:
    """Whether the recommended encoder finds less than half of what chance leaves out at 50 candidates."""
    value, chance = found.recommended.recall[50], 50 / found.sampled_documents
    return value is not None and value - chance < 0.5 * (1 - chance)


def _low_recall(found: Diagnosis) -> str:
    if not _recall_is_low(found):
        return ""
    spread = found.maxsim
    return (
        f"Every encoder finds few of the exact best here: the MaxSim of the best document ({spread.best:.3f}) "
        f"is near that of the tenth best ({spread.tenth:.3f}) and of the median document "
        f"({spread.median:.3f}). Search exactly (muvera index --exact-tokens), and make sure that these are "
        "the tokens of a model trained for MaxSim."
    )


def _use(found: Diagnosis) -> str:
    row = found.recommended
    preset = preset_name(row.config)
    on_command_line = f" (muvera index --preset {preset})" if preset else ""
    setting = f"{constructor_call(row.config)}{on_command_line}, {row.floats:,} floats"
    if found.exact_search:
        return (
            f"With {found.tokens:,} tokens an index reads them all and is exact: it needs no vectors. "
            f"If the collection grows: {setting}."
        )
    if row.recall[50] is None:
        return f"Start with {setting}, and diagnose again with more documents."
    others = [each for each in found.encoders if each.name not in (PAPER, row.name)]
    return f"Use {setting}: {_against(row, others)}."


def _against(row: MeasuredEncoder, others: list[MeasuredEncoder]) -> str:
    """Return recall at 50 candidates beside that of the other encoder that finds most."""
    sentence = f"recall at 50 candidates is {row.recall[50] or 0.0:.1%}"
    best = max(others, key=lambda other: other.recall[50] or 0.0, default=None)
    if best is None:
        return sentence
    return f"{sentence}, that of {best.name} is {best.recall[50] or 0.0:.1%} with {best.floats:,} floats"


def _expect(found: Diagnosis) -> str:
    measured = {cutoff: value for cutoff, value in found.recommended.recall.items() if value is not None}
    if not measured or found.exact_search or _recall_is_low(found):
        return ""
    cutoff = next((cutoff for cutoff, value in measured.items() if value >= _ENOUGH), max(measured))
    start = f"Expect {measured[cutoff]:.0%} of the exact 10 best from {cutoff} candidates"
    if measured[cutoff] < _ENOUGH:
        start += ": rerank more candidates, or use larger vectors"
    if found.documents > found.sampled_documents:
        start += (
            f". That is measured among {found.sampled_documents:,} documents: among all "
            f"{found.documents:,} the same number of candidates finds less, so rerank more"
        )
    return start + "."


def _unmeasured(found: Diagnosis) -> str:
    """Say that no maps were learned, where an index of the collection would learn some."""
    if found.exact_search or any(row.config.needs_fit_sample for row in found.encoders):
        return ""
    return (
        "Compact and learned vectors are not measured, because too few documents are sampled to learn their "
        "maps. Sample more documents."
    )
