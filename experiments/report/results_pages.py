"""Pages of stored results: one Markdown file per subject, and an index with the main table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from ..runner.provenance import machine_text
from .stored_results import load_results
from .table import Table, markdown

__all__ = [
    "MAIN",
    "SUBJECTS",
    "experiment_section",
    "readme_table",
    "short_table",
    "update_readme",
    "write_pages",
]

#: The experiment on the index page.
MAIN = "end_to_end"

#: Name of a page -> title, and experiments.
SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "systems": (
        "Comparison with other systems",
        (MAIN, "headline", "plaid", "token_search", "single_vector", "peer_fdes"),
    ),
    "recall": (
        "Recall of FDEs",
        (
            *("vector_dimension", "ablation", "sizes", "nearest_neighbor", "narrow_cones", "variance"),
            *("final_projection", "limit"),
        ),
    ),
    "vectors": (
        "Smaller vectors",
        (
            *("smaller_vectors", "learned_costs", "quantization", "tuned"),
            "default_vectors",
        ),
    ),
    "hybrid": ("Hybrid search", ("hybrid", "texts")),
    "reranking": ("Exact ranking", ("reranking",)),
    "size": ("Size of the collection", ("first_stage", "crossover")),
    "speed": ("Speed compared with other libraries", ("speed",)),
    "tokens": ("Token codecs", ("tokens",)),
    "searches": ("Whole searches", ("searches",)),
    "dial": ("A recall instead of candidates", ("dial",)),
    "growth": ("Cost of an index by number of documents", ("growth",)),
}

_GUIDE = """\
These pages are generated from `experiments/results/` by `python -m experiments results`. Each experiment states
its queries, documents and seeds; these differ, so numbers for one system are not comparable across experiments.
10-recall@N is the share of exact Chamfer's top 10 among the first N documents. Brackets hold 95% intervals."""

_FIGURE = "\n".join(
    "![Recall by queries per second, one panel per collection; upper right is better]"
    f"(figures/end_to_end-speed{suffix}.svg#only-{theme})"
    for suffix, theme in (("", "light"), ("-dark", "dark"))
)

#: Recall and collection of the README's table, and its row names by systems of "headline"; missing systems are skipped.
_README_RECALL, _README_COLLECTION = ".95", "scifact-minilm"
_README_SYSTEMS = {
    "muvera, tokens int8": "muvera, tokens also as int8",
    "muvera": "muvera",
    "muvera learned 512, tokens int8": "LEMUR's form of vectors, fitted and searched by muvera",
    "lemur, ranked exactly": "LEMUR, ranked exactly",
    "plaid, ranked exactly": "PLAID (fast-plaid), ranked exactly",
    "warp, ranked exactly": "WARP, ranked exactly",
    "tachiom, ranked exactly": "TACHIOM, ranked exactly",
    "qdrant, means and MaxSim": "Qdrant Edge, mean vectors and MaxSim",
}
_README_MARKS = ("<!-- table: python -m experiments results -->\n", "<!-- end of the table -->")


def write_pages(folder: Path, results: Path) -> list[Path]:
    """Write a page into `folder` for every subject with stored results, and an index with the main table."""
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, str] = {}
    for name, (title, members) in SUBJECTS.items():
        stored = [values for values in (load_results(member, results) for member in members) if values]
        if stored:
            pages[name] = "\n\n".join([f"# {title}", *map(experiment_section, stored)])
    main = load_results(MAIN, results)
    contents = "\n".join(f"- [{SUBJECTS[name][0]}]({name}.md)" for name in pages)
    pages["index"] = "\n\n".join(
        ["# Results", _GUIDE, contents, *([short_table(main), _FIGURE] if main else [])]
    )
    paths = [folder / f"{name}.md" for name in pages]
    for path, page in zip(paths, pages.values(), strict=True):
        write_bytes(path, f"{page}\n".encode())
    return paths


def experiment_section(stored: dict[str, Any]) -> str:
    """Return the section of an experiment: description, conditions and folded tables; of a bench, its tables.

    A stored "note" replaces the configuration's conditions if tables were measured under others.
    """
    content, parts = stored["configuration"], []
    if "machine" in stored:
        source = f" ({content['reproduces']}.)" if content.get("reproduces") else ""
        conditions = stored.get("note") or _conditions(content)
        parts = [
            f"## {content['title']}",
            f"{_caption(content)}{source}",
            f"{conditions} {_measured_on(stored)}",
        ]
    for table in stored["tables"]:
        title = table["title"].removeprefix(f"{content['title']}: ")
        caption = "" if table["caption"] == content.get("caption") else table["caption"]
        cells = markdown(Table(title, table["header"], table["rows"]))
        if "machine" in stored:
            caption = f" {caption}" if caption else ""
            parts.append(f"<details markdown><summary>{title}</summary>{caption}\n\n{cells}\n\n</details>")
        else:
            parts += [f"## {title}", caption, cells]
    return "\n\n".join(part for part in parts if part)


def short_table(stored: dict[str, Any]) -> str:
    """Return a table with the quality and queries per second of an experiment's compared points."""
    content, compared = stored["configuration"], stored["configuration"]["compare"][0]
    tables = {
        table["title"].partition(": ")[2]: {row[0]: row[1:] for row in table["rows"]}
        for table in stored["tables"]
    }
    speed = next((title for title in tables if title.startswith("queries per second")), None)
    metrics = [metric for metric in content["metrics"] if metric in tables][:2]
    header = stored["tables"][0]["header"]
    rows = []
    for point in dict.fromkeys([compared["to"], *compared["what"]]):
        own = [tables[title][point] for title in (*metrics, speed) if point in tables.get(title or "", {})]
        cells = [
            " / ".join(value.partition(" ")[0].removeprefix("0") for value in values if value)
            for values in zip(*own, strict=True)
        ]
        if any(cells):
            rows.append([point, *cells])
    table = Table("", ["system", *(name.removeprefix("plaid-") for name in header[1:])], rows)
    what = " / ".join([*metrics, "queries per second"])
    return f"**{content['title']}** ({what}). {_caption(content)} {_measured_on(stored)}\n\n{markdown(table)}"


def readme_table(stored: dict[str, Any]) -> str:
    """Return the README's table: milliseconds and bytes of systems at equal recall on one collection."""
    table = next(
        one
        for one in stored["tables"]
        if "per second" in one["title"] and one["title"].endswith(_README_COLLECTION)
    )
    speed = table["header"].index(_README_RECALL)
    size = next(i for i, name in enumerate(table["header"]) if name.startswith("bytes"))
    rates = {row[0]: (row[speed].partition(" ")[0].replace(",", ""), row[size]) for row in table["rows"]}
    rows = [
        [name, f"{1000 / float(rates[system][0]):.1f}", rates[system][1]]
        for system, name in _README_SYSTEMS.items()
        if rates.get(system, ("",))[0]
    ]
    header = ["SciFact, 5,183 abstracts", "ms per query", "bytes per abstract, with tokens"]
    return markdown(Table("", header, rows))


def update_readme(text: str, results: Path) -> str:
    """Return the README's text with its table replaced by that of the stored results."""
    start, end = (text.index(mark) for mark in _README_MARKS)
    table = readme_table(load_results("headline", results))
    return f"{text[: start + len(_README_MARKS[0])]}{table}\n{text[end:]}"


def _conditions(content: dict[str, Any]) -> str:
    """Describe the queries, documents and seeds of a configuration."""
    sizes = content.get("documents", ["all"])
    samples = ", ".join(f"{size:,}" for size in sizes if size != "all")
    documents = f"random samples of {samples}" if samples else "all"
    if samples and "all" in sizes:
        documents += " documents, and all documents"
    training = content.get("training_queries")
    without = f", excluding the {training:.0%} that systems may learn from" if training else ""
    return (
        f"Documents: {documents}. Queries: at most {content.get('queries', 300)} per collection, judged ones "
        f"first{without}. Seeds: {content.get('seeds', 1)}."
    )


def _measured_on(stored: dict[str, Any]) -> str:
    return f"{machine_text(stored['machine'])}; threads: {stored['threads']}."


def _caption(content: dict[str, Any]) -> str:
    return " ".join(content.get("caption", "").split())
