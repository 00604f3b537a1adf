"""The download function of RAGatouille's examples."""

import json
from urllib.parse import urlencode
from urllib.request import Request, urlopen

__all__ = ["get_wikipedia_page"]


def get_wikipedia_page(title: str) -> str | None:
    """Download the text of a page of the English Wikipedia; None if it does not exist."""
    query = {"action": "query", "format": "json", "titles": title, "prop": "extracts", "explaintext": 1}
    address = f"https://en.wikipedia.org/w/api.php?{urlencode(query)}"
    with urlopen(Request(address, headers={"User-Agent": "muvera-toolkit"}), timeout=60) as response:
        page = next(iter(json.load(response)["query"]["pages"].values()))
    return str(page["extract"]) if "extract" in page else None
