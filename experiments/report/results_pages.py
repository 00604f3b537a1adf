"""Pages of stored results: one Markdown file per question, and an index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muvera import FDEConfig
from muvera.utils.atomic_files import write_bytes

from ..runner.provenance import machine_text
from .pictures import pictures_of, write_picture
from .stored_results import load_results
from .table import Table, markdown
from .verdicts import verdict_of

#: Name of a page -> the question that it answers, the advice that follows from it, and
#: experiments.
SUBJECTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "paper": (
        "Which figures of the MUVERA paper hold here?", "[MUVERA as in the paper](../muvera.md)",
        (
            *("vector_dimension", "nearest_neighbor", "single_vector", "carving", "quantization", "graph"),
            *("plaid", "variance", "final_projection"),
        ),
    ),
    "systems": (
        "How fast are other engines at the same recall?", "[Switch](../how-to/switch.md)",
        ("headline", "speed"),
    ),
    "vectors": (
        "Which encoder, and how many floats?", "[Encoders](../settings.md#encoders)",
        ("end_to_end", "default_vectors", "nested", "views", "distractors"),
    ),
    "fdes": (
        "How good are FDEs, and which of their options matter?",
        "[FDEs](../how-it-works.md#fixed-dimensional-encodings-fdes)",
        ("pipeline", "ablation", "limit", "token_search", "insertion_order", "onnx"),
    ),
    "tokens": (
        "How should tokens be stored?", "[Tokens](../settings.md#how-tokens-are-stored)",
        ("searches", "tokens", "pooling"),
    ),
    "texts": (
        "Do words improve the ranking of texts?", "[Texts](../how-to/search-texts.md)",
        ("texts", "words", "hybrid", "sparse", "coil", "long_texts", "explanations"),
    ),
    "disk": (
        "What do searches cost if exact tokens are on a disk?",
        "[Tokens](../settings.md#how-tokens-are-stored)",
        ("cold",),
    ),
    "models": (
        "Can the model change before all texts are encoded again?",
        "[Change the model](../how-to/search-texts.md#change-the-model-keep-the-index)",
        ("adapt",),
    ),
    "dial": (
        "A recall or a number of candidates?", "[Recall](../settings.md#a-recall-instead-of-candidates)",
        ("dial", "recall_dial"),
    ),
    "recall": (
        "Is the recall that is measured while people search right, and what does it cost?",
        "[Recall in production](../how-to/recall-in-production.md)", ("meter",),
    ),
    "pages": (
        "How should pages be stored?", "[Pages](../how-to/pages.md#what-is-stored)",
        ("pages",),
    ),
    "size": (
        "Which search for which size, and what does a large index cost?",
        "[Search of vectors](../settings.md#how-vectors-are-searched)",
        ("size", "landmarks", "first_stage", "growth", "scale"),
    ),
}  # fmt: skip

# Commands of benches with other names than their results, or with an argument.
_COMMANDS = {
    "first_stage": "first-stage", "growth": "grow", "words": "words FOLDER", "long_texts": "long-texts",
    "explanations": "explanations FOLDER", "recall_dial": "recall-dial",
}  # fmt: skip

# Parts of the command `vectors` by the titles of their tables.
_PARTS = {
    "The family of FDEs": "family",
    "Fits on few documents": "few",
    "Documents of another kind": "drift",
    "Fit of moments": "fit",
    "Presets": "presets",
    "More floats": "floats",
    "Wide tokens": "wide",
    "Choice of the default": "choice",
    "Added documents": "added",
    "Adding documents of another kind": "mixed",
}

# What stands before the sections of a page.
_INTRODUCTIONS = {
    "paper": """\
Figures and tables are numbered as in the first version of arXiv 2405.19504. The paper uses ColBERTv2 on MS MARCO
and five other BEIR collections of up to 8.8 million documents, a C++ engine with DiskANN, and recall of judged
documents. Here the collections are small, only lotte500-colbertv2 has token vectors of ColBERTv2, graphs are built
by hnswlib, and 10-recall@N is the share of exact Chamfer's ten best documents. Absolute values
therefore differ. What can be compared is which choice is better, and by how much. "Holds here" and the sentence
beside it follow from the stored results by the rules in `experiments/report/verdicts.py`.""",
}

_GUIDE = """\
These pages are generated from `experiments/results/` by `python -m experiments results`. Each experiment states
its queries, documents and seeds; these differ, so numbers for one system are not comparable across experiments.
10-recall@N is the share of exact Chamfer's top 10 among the first N documents. Square brackets hold 95% intervals."""

#: Recall of the README's table, and its first title by collections: the first one with
#: results is shown.
_README_RECALL = ".95"
_README_COLLECTIONS = {
    "scifact-minilm": "SciFact, 5,183 abstracts",
    "cosqa-minilm": "CoSQA, 6,267 functions",
    "lotte500-colbertv2": "LoTTE, 500 passages, ColBERTv2",
}

#: Its row names by systems of "headline"; missing systems are skipped.
_README_SYSTEMS = {
    "muvera, tokens int8": "muvera, tokens also as int8",
    "muvera": "muvera",
    "muvera moments 256, tokens int8": "muvera, `moments` of 256 floats, tokens also as int8",
    "muvera moments 256": "muvera, `moments` of 256 floats",
    "muvera fde, hnswlib": "muvera, hnswlib",
    "muvera paper, hnswlib": "the paper's FDE, hnswlib",
    "lemur, ranked exactly": "LEMUR, ranked exactly",
    "plaid, ranked exactly": "PLAID (fast-plaid), ranked exactly",
    "warp, ranked exactly": "WARP, ranked exactly",
    "tachiom, ranked exactly": "TACHIOM, ranked exactly",
    "qdrant, means and MaxSim": "Qdrant Edge, mean vectors and MaxSim",
}
_README_MARKS = ("<!-- table: python -m experiments results -->\n", "<!-- end of the table -->")

#: The table of FDEs in the README and in docs/muvera.md: its mark, its columns by
#: collections of the bench `vectors`, and its rows by labels there; missing collections
#: and rows are skipped.
_FDE_MARKS = ("<!-- table of FDEs: python -m experiments results -->\n", _README_MARKS[1])
_FDE_DEPTH = "@20"
_TOKENS_PER_TEXT = 33  # of apidocs
_FDE_COLLECTIONS = {
    "scifact-minilm": "SciFact",
    "cosqa-minilm": "CoSQA",
    "lotte500-colbertv2": "ColBERTv2, LoTTE",
    "cranfield-minilm": "Cranfield",
}
_FDE_ROWS = {
    "paper": "the paper's FDE",
    "simhash": "`simhash`: centering, length cells, mean token apart, soft cells, complementary projections",
    "moments": "`moments`: mean and covariance, learned projection",
    "**fde**": "`fde`, the default: also landmark cells",
}


def write_pages(folder: Path, results: Path) -> list[Path]:
    """Write a page for every question with stored results, and an index.

    They go into `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, str] = {}
    questions = []
    for name, (question, advice, members) in SUBJECTS.items():
        stored = [values for values in (load_results(member, results) for member in members) if values]
        if stored:
            sections = [experiment_section(values, folder) for values in stored]
            pages[name] = "\n\n".join([f"# {question}", *_introduction(name, stored, results), *sections])
            questions.append([f"[{question}]({name}.md)", advice])
    pages["index"] = "\n\n".join(
        ["# Results", _GUIDE, markdown(Table("", ["measurements", "advice"], questions))]
    )
    paths = [folder / f"{name}.md" for name in pages]
    for path, page in zip(paths, pages.values(), strict=True):
        write_bytes(path, f"{page}\n".encode())
    return paths


def _introduction(name: str, stored: Sequence[dict[str, Any]], results: Path) -> list[str]:
    """Return a page's text before its sections, with the verdicts on a paper."""
    if name not in _INTRODUCTIONS:
        return []
    rows = []
    for values in stored:
        content = values["configuration"]
        source = content["reproduces"].removeprefix("MUVERA paper, ")
        verdict = verdict_of(values["experiment"], results)
        claim = " ".join(content["paper"].split())
        rows.append([f"[{source}](#{_anchor(content['title'])})", claim, verdict.holds, verdict.text])
    header = ["in the paper", "the paper found", "holds here", "measured here"]
    return [_INTRODUCTIONS[name], markdown(Table("", header, rows))]


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as MkDocs and GitHub make it.

    Examples
    --------
    >>> _anchor("The paper's FDEs, by N")
    'the-papers-fdes-by-n'
    """
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _pictures(stored: dict[str, Any], folder: Path) -> list[str]:
    """Draw an experiment's pictures, and return the Markdown that shows them."""
    shown = []
    for name, plot in pictures_of(stored).items():
        write_picture(plot, folder / "figures" / f"{name}.svg")
        title = ", ".join(filter(None, [f"{plot.quality} by {plot.cost}", plot.collection]))
        knobs = f". At the points: {plot.knobs}." if plot.knobs else ""
        shown.append(f"![{title}](figures/{name}.svg)\n\n*{title}{knobs}*")
    return shown


def experiment_section(stored: dict[str, Any], folder: Path) -> str:
    """Return the section of an experiment; of a bench, all tables with their captions.

    Its picture goes into `folder`.

    A run's section has its conditions and its most important table: the compared
    points, or the first table and others of its kind.  Other tables are folded.
    """
    name, content = stored["experiment"], stored["configuration"]
    run = "machine" in stored
    if not run:
        shown = _pictures(stored, folder)
        parts = []
        for table in stored["tables"]:
            caption = f"{table['caption']} {_bench_command(name, table['title'])}".strip()
            parts += [f"## {table['title']}", *shown, caption, _cells(table)]
            shown = []  # the picture is of the first table
        return "\n\n".join(parts)
    command = f"`python -m experiments run {name}`"
    source = f" ({content['reproduces']}.)" if content.get("reproduces") else ""
    caption = " ".join(content.get("caption", "").split())
    on = f"{machine_text(stored['machine'])}; threads: {stored['threads']}."
    parts = [f"## {content['title']}", *_pictures(stored, folder)]
    if content.get("paper"):
        parts.append(f"The paper: {' '.join(content['paper'].split())}")
    parts += [f"{caption}{source}", f"{_conditions(content)} {on} {command}"]
    parts += [short_table(stored)] if content.get("compare") else []
    first = _title(stored, stored["tables"][0]).partition(",")[0]
    for table in stored["tables"]:
        title, cells = _title(stored, table), _cells(table)
        is_main = title.partition(",")[0] == first and not content.get("compare")
        if is_main or title.startswith("candidates"):
            parts += [f"**{title}**", cells]
        else:
            parts.append(f"<details markdown><summary>{title}</summary>\n\n{cells}\n\n</details>")
    return "\n\n".join(parts)


def _bench_command(name: str, title: str) -> str:
    command = f"vectors {_PARTS[title]}" if name == "default_vectors" else _COMMANDS.get(name, name)
    return f"`python -m experiments {command}`"


def short_table(stored: dict[str, Any]) -> str:
    """Return a table of the quality and queries per second of compared points."""
    content, compared = stored["configuration"], stored["configuration"]["compare"][0]
    tables = {_title(stored, table): {row[0]: row[1:] for row in table["rows"]} for table in stored["tables"]}
    speed = [title for title in tables if title.startswith("queries per second")]
    titles = [*[metric for metric in content["metrics"] if metric in tables][:2], *speed]
    rows = []
    points = compared.get("what", tables[titles[0]])
    for point in dict.fromkeys([compared["to"], *points]):
        own = [tables[title][point] for title in titles if point in tables[title]]
        cells = [
            " / ".join(value.partition(" ")[0].removeprefix("0") for value in values if value)
            for values in zip(*own, strict=True)
        ]
        if any(cells):
            rows.append([point, *cells])
    table = next(one for one in stored["tables"] if _title(stored, one) == titles[0])
    columns = table["header"][1:]
    header = [name.removeprefix("plaid-") for name in columns]
    what = " / ".join(title.partition(" (")[0] for title in titles)
    return f"**{what}**\n\n{markdown(Table('', ['system', *header], rows))}"


def _title(stored: dict[str, Any], table: dict[str, Any]) -> str:
    """Return a table's title without that of the experiment."""
    return str(table["title"]).removeprefix(f"{stored['configuration']['title']}: ")


def _cells(table: dict[str, Any]) -> str:
    return markdown(Table("", table["header"], table["rows"]))


def readme_table(stored: dict[str, Any]) -> str:
    """Return the README's table of systems at equal recall on one collection.

    It shows milliseconds and bytes.
    """
    collection, table = next(
        (name, one)
        for name in _README_COLLECTIONS
        for one in stored["tables"]
        if "per second" in one["title"] and one["title"].endswith(name)
    )
    speed = table["header"].index(_README_RECALL)
    size = next(i for i, name in enumerate(table["header"]) if name.startswith("bytes"))
    rates = {row[0]: (row[speed].partition(" ")[0].replace(",", ""), row[size]) for row in table["rows"]}
    rows = [
        [name, f"{1000 / float(rates[system][0]):.1f}", rates[system][1]]
        for system, name in _README_SYSTEMS.items()
        if rates.get(system, ("",))[0]
    ]
    header = [_README_COLLECTIONS[collection], "ms per query", "bytes per text, with tokens"]
    return markdown(Table("", header, rows))


def fde_table(stored: dict[str, Any], landmarks: dict[str, Any]) -> str:
    """Return the recall of the paper's FDE and of the presets on several collections.

    With results of the bench `landmarks`, a column has the candidates for a recall of
    .95 at its largest size.  Without results of `vectors`, return "".
    """
    tables = [table for table in stored.get("tables", []) if table["title"] == "The family of FDEs"]
    if not tables:
        return ""
    header = tables[0]["header"]
    name, label, floats, depth = (
        header.index(column) for column in ("collection", "FDE", "floats", _FDE_DEPTH)
    )
    cells = {(row[label], row[name]): (row[floats], row[depth]) for row in tables[0]["rows"]}
    shown = [collection for collection in _FDE_COLLECTIONS if ("**fde**", collection) in cells]
    title, numbers = _candidates_at_size(landmarks)
    rows = []
    for preset, text in _FDE_ROWS.items():
        more = [numbers.get(preset, "")] if title else []
        own = [cells[preset, collection] for collection in shown if (preset, collection) in cells]
        if own and len(own) == len(shown):
            rows.append([text, own[0][0], *(recall for _, recall in own), *more])
    titles = [_FDE_COLLECTIONS[collection] for collection in shown] + [title] * bool(title)
    return markdown(Table("", [f"10-recall{_FDE_DEPTH}", "floats", *titles], rows)) if rows else ""


def _candidates_at_size(stored: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a title, and the candidates for .95 of each preset at the largest size.

    The default is the one that an index of this size takes.
    """
    table = next((one for one in stored.get("tables", []) if one["title"].endswith("apidocs-minilm")), None)
    if table is None:
        return "", {}
    rows = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
    size = max((row["documents"] for row in rows), key=lambda text: int(text.replace(",", "")))
    count = int(size.replace(",", ""))
    config = FDEConfig(dimension=128).sized(count, _TOKENS_PER_TEXT * count)
    wanted = [
        f"{number:,}" for number in (config.cell_dimension, config.num_directions, config.vector_dimension)
    ]
    numbers = {}
    for row in rows:
        own = [row[name] for name in ("landmarks", "directions", "floats")]
        if row["documents"] == size and (row["FDE"] != "fde" or own == wanted):
            numbers["**fde**" if row["FDE"] == "fde" else row["FDE"]] = row["candidates for 0.95"]
    return f"candidates for .95, {size} texts", numbers


def update_readme(text: str, results: Path) -> str:
    """Return the README's text with its tables replaced by the stored results."""
    table = readme_table(load_results("headline", results))
    return update_fde_table(_filled(text, _README_MARKS, table), results)


def update_fde_table(text: str, results: Path) -> str:
    """Return a document's text with its table of FDEs from the stored results."""
    names = "default_vectors", "landmarks"
    return _filled(text, _FDE_MARKS, fde_table(*(load_results(name, results) for name in names)))


def _filled(text: str, marks: tuple[str, str], table: str) -> str:
    """Replace what stands between the marks by a table, which may be empty."""
    begin = text.index(marks[0]) + len(marks[0])
    return f"{text[:begin]}{table}{table and chr(10)}{text[text.index(marks[1], begin) :]}"


def _conditions(content: dict[str, Any]) -> str:
    """Describe the queries and seeds of a configuration."""
    return (
        f"Documents: all. Queries: at most {content.get('queries', 300)} per collection, judged ones "
        f"first. Seeds: {content.get('seeds', 1)}."
    )
