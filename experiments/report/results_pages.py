"""Pages of stored results: one Markdown file a subject, and a list of them with the main table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from ..bench import cold_tables, distractor_report, growth_tables, speed_tables
from ..bench import pruning as pruned_ranking
from ..bench import tokens as token_codecs
from .markdown import markdown_table
from .stored_results import default_encoders, load_results

__all__ = ["MAIN", "SUBJECTS", "experiment_section", "short_table", "write_pages"]

#: The experiment that the list of pages shows.
MAIN = "end_to_end"

#: Pages: name of the file -> title and experiments.
SUBJECTS = {
    "systems": (
        "Against other systems",
        ("end_to_end", "headline", "plaid", "token_search", "single_vector", "peer_fdes"),
    ),
    "recall": (
        "Recall of FDEs",
        (
            "vector_dimension",
            "ablation",
            "sizes",
            "nearest_neighbor",
            "narrow_cones",
            "variance",
            "losses",
            "final_projection",
            "limit",
        ),
    ),
    "vectors": (
        "Smaller vectors",
        (
            "smaller_vectors",
            "fit_with_queries",
            "learned_costs",
            "two_parts",
            "quantization",
            "tuned",
        ),
    ),
    "hybrid": ("Hybrid search", ("hybrid",)),
    "reranking": ("Exact ranking", ("reranking", "carving")),
    "size": (
        "Size of the collection",
        ("crossover", "collection_size", "scaling", "insertion_order"),
    ),
}

#: Experiments that have a command of their own in place of a configuration, behind a page's others.
_BESIDE = {"vectors": ("mixed_streams",)}

#: Pages of commands with results of their own: name of the file and of the results -> title and text.
_OWN_PAGES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "speed": ("Speed beside other libraries", speed_tables.markdown),
    "tokens": ("Codes of tokens", token_codecs.markdown),
    "cold": ("Tokens on the disk", cold_tables.markdown),
    "growth": ("An index at growing numbers of documents", growth_tables.markdown),
    "distractors": ("Candidates needed as distractors are added", distractor_report.markdown),
}

#: Results of such a command that stand at the end of the page of a subject.
_PRUNED = ("pruning", "reranking")

# Said of results that are older than the defaults of today.
_FORMER_DEFAULTS = (
    "Measured before FDEs and learned vectors had their present defaults: rows of defaults are those of then."
)


def write_pages(folder: Path, results: Path) -> list[Path]:
    """Write every page of which results are stored, and a list of them with the main table and figure.

    Parameters
    ----------
    folder : Path
        Of the pages.
    results : Path
        Of the stored results.

    Returns
    -------
    list of Path
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, tuple[str, str]] = {}
    for name, (title, experiments) in SUBJECTS.items():
        sections = [
            experiment_section(stored)
            for one in (*experiments, *_BESIDE.get(name, ()))
            if (stored := load_results(one, results))
        ]
        if sections:
            pages[name] = (title, "\n\n".join(sections))
    pruned = load_results(_PRUNED[0], results)
    if pruned:
        title, page = pages.get(_PRUNED[1], (SUBJECTS[_PRUNED[1]][0], ""))
        pages[_PRUNED[1]] = (title, f"{page}\n\n{pruned_ranking.markdown(pruned)}".strip())
    for name, (title, text_of) in _OWN_PAGES.items():
        stored = load_results(name, results)
        if stored:
            pages[name] = (title, text_of(stored))
    contents = "\n".join(f"- [{title}]({name}.md)" for name, (title, _) in pages.items())
    texts = {name: f"# {title}\n\n{text}\n" for name, (title, text) in pages.items()}
    main = load_results(MAIN, results)
    parts = ["# Results", _GUIDE, contents, *([short_table(main), _FIGURE] if main else [])]
    texts["index"] = "\n\n".join(parts) + "\n"
    written = []
    for name, text in texts.items():
        path = folder / f"{name}.md"
        write_bytes(path, text.encode())
        written.append(path)
    return written


_GUIDE = """\
These pages are generated from `experiments/results/` by `python -m experiments results`. Each experiment says
how many queries, documents and seeds it was measured with; the same system has other values in another
experiment where these differ. 10-recall@N is the share of exact Chamfer's ten best documents among the first N."""

#: Drawn by ``python -m experiments page RUN --figures docs/results/figures --only end_to_end-speed``.
_FIGURE = """\
The same over numbers of candidates; upper right is better:

![Recall against queries per second, one panel for each collection](figures/end_to_end-speed.svg#only-light)
![Recall against queries per second, one panel for each collection](figures/end_to_end-speed-dark.svg#only-dark)"""


def experiment_section(stored: dict[str, Any]) -> str:
    """Return a section of an experiment: what was measured and how, and its tables.

    Parameters
    ----------
    stored : dict
        As :func:`experiments.report.stored_results.save_run` stores it; a "note" stands instead of the
        configuration's conditions where tables were measured under others.
    """
    content = stored["configuration"]
    source = f" ({content['reproduces']}.)" if content.get("reproduces") else ""
    parts = [
        f"## {content['title']}",
        f"{' '.join(content.get('caption', '').split())}{source}",
        f"{stored.get('note') or _conditions(content)} {_measured_on(stored)}".strip(),
    ]
    for table in stored["tables"]:
        title = table["title"].removeprefix(f"{content['title']}: ")
        own = "" if table["caption"] == content.get("caption") else f" {table['caption']}"
        folded = markdown_table(table["header"], table["rows"])
        parts.append(f"<details markdown><summary>{title}</summary>{own}\n\n{folded}\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def short_table(stored: dict[str, Any]) -> str:
    """Return the compared points' qualities and queries per second of an experiment in one table."""
    content = stored["configuration"]
    compared = content["compare"][0]
    tables = {
        table["title"].partition(": ")[2]: {row[0]: row[1:] for row in table["rows"]}
        for table in stored["tables"]
    }
    header = stored["tables"][0]["header"]
    metrics = [metric for metric in content["metrics"] if metric in tables][:2]
    speeds = next((rows for title, rows in tables.items() if title.startswith("queries per second")), {})
    rows = []
    for point in dict.fromkeys([compared["to"], *compared["what"]]):
        cells = []
        for place in range(len(header) - 1):
            values = [
                found[point][place]
                for found in (*(tables[metric] for metric in metrics), speeds)
                if point in found
            ]
            cells.append(" / ".join(value.partition(" ")[0].removeprefix("0") for value in values if value))
        if any(cells):
            rows.append([point, *cells])
    table = markdown_table(["", *(name.removeprefix("plaid-") for name in header[1:])], rows)
    what = " / ".join([*metrics, "queries per second"])
    caption = " ".join(content.get("caption", "").split())
    return f"**{content['title']}** ({what}). {caption} {_measured_on(stored)}\n\n{table}"


def _conditions(content: dict[str, Any]) -> str:
    """Say how many queries, documents and seeds a configuration measures with."""
    if content.get("kind") == "scaling":
        return ""
    sizes = content.get("documents", ["all"])
    samples = [f"{size:,}" for size in sizes if size != "all"]
    documents = f"a random sample of {' and '.join(samples)}" if samples else "all"
    if samples and "all" in sizes:
        documents += ", and all"
    seeds = content.get("seeds", 1)
    shared = content.get("training_queries")
    return (
        f"Documents: {documents}. Queries: at most {content.get('queries', 300)} of each collection, judged "
        f"ones first{f', of which none of the {shared:.0%} that were set aside' if shared else ''}. "
        f"Seeds: {seeds}."
    )


def _measured_on(stored: dict[str, Any]) -> str:
    machine = stored["machine"]
    intervals = "" if stored.get("note") else "; in brackets 95% intervals"
    former = "" if stored.get("defaults") == default_encoders() else f" {_FORMER_DEFAULTS}"
    return (
        f"{machine['processor']}, {machine['cores']} cores (load {machine['load']} at the start), "
        f"Python {machine['python']}, NumPy {machine['numpy']}; threads: {stored['threads']}{intervals}.{former}"
    )
