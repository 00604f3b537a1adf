"""The function of RAGatouille's examples that reads Wikipedia."""

from __future__ import annotations

import json
import urllib.request
from urllib.parse import urlencode

from ... import __version__

# The API of the English Wikipedia.
_API = "https://en.wikipedia.org/w/api.php"

# Seconds to wait for its answer.
_TIMEOUT = 30


def get_wikipedia_page(title: str) -> str | None:
    """Return the text of a page of the English Wikipedia.

    Parameters
    ----------
    title : str
        Such as ``"Hayao_Miyazaki"``.

    Returns
    -------
    str or None
        None if there is no such page.

    Raises
    ------
    OSError
        If Wikipedia does not answer.

    Examples
    --------
    >>> page = get_wikipedia_page("Hayao_Miyazaki")  # doctest: +SKIP
    """
    query = {"action": "query", "format": "json", "titles": title, "prop": "extracts", "explaintext": 1}
    # Wikipedia refuses requests that do not name their program.
    headers = {"User-Agent": f"muvera-toolkit/{__version__}"}
    request = urllib.request.Request(f"{_API}?{urlencode(query)}", headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        pages = json.load(response)["query"]["pages"]
    page: dict[str, str] = next(iter(pages.values()))
    return page.get("extract")
