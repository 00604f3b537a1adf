"""``muvera pages search``: find pages, and write pictures of what matched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..options import GroupByOption, IndexEncoderOption, JsonOption, RecallOption, WhereOption, WordsOption
from ..printing import seconds, show, warn, wrapped
from ..verbs import IndexArgument, open_pages

RootOption = Annotated[Path | None, Option(help="Folder of the documents, if they were moved.")]


def search(
    index: IndexArgument,
    query: Annotated[str, Argument(metavar="QUERY", help="Words.")],
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of pages.")] = 5,
    where: WhereOption = None,
    words: WordsOption = None,
    candidates: Annotated[
        int | None, Option(min=1, help="Pages to rank (default: 5,000; URL: 200 to 1,000).")
    ] = None,
    recall: RecallOption = None,
    group_by: GroupByOption = None,
    pictures: Annotated[
        Path | None, Option(help="Folder for a picture of each page, with a map of what matched.")
    ] = None,
    encoder: IndexEncoderOption = None,
    root: RootOption = None,
    json_: JsonOption = False,
) -> None:
    """Search pages, and show where they matched.

    \b
    Example:
      muvera pages search my-pages "revenue by region" --pictures found
    """
    from ...utils.checks import as_path, counted

    if not query.strip():
        raise ValueError("The query is blank. Give at least a word.")
    if pictures is not None:
        as_path(pictures, "--pictures")  # refuses a URL
    with open_pages(index, encoder, root=root) as loaded:
        begun = time.perf_counter()
        hits = loaded.search(
            query, k, where=where, words=words, recall=recall, group_by=group_by,
            candidates=None if candidates is None else max(candidates, k),
        )  # fmt: skip
        duration = time.perf_counter() - begun
        lines, found = [], []
        for rank, hit in enumerate(hits, 1):
            facts = hit.to_dict()
            lines.append(
                wrapped(f"{rank:2d}  {hit.score:.3f}  {hit.page[0]}, page {hit.page[1]}", later="    ")
            )
            if hit.source.facts.grid is not None:
                facts["boxes"] = hit.boxes()
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                path = pictures / f"{rank:02d}.png"
                try:
                    hit.save(path)
                except (ValueError, OSError) as error:
                    warn(str(error))
                else:
                    facts["picture"] = str(path)
                    lines.append(f"    {path}")
            found.append(facts)
        total = len(loaded)
    answer = {"index": index, "query": query, "seconds": round(duration, 4), "hits": found}
    show(
        json_, answer, "\n".join(lines), f"{len(hits):,} of {counted(total, 'page')} in {seconds(duration)}"
    )  # fmt: skip
