"""HTTPEncoder: a model behind an HTTP endpoint, for texts or for pages."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from .base import ModelEncoder, TextSide
from .pages import COLPALI_GRID, COLPALI_VECTORS, EncodedPage, PageEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

# Larger answers are not the vectors of one batch.
_MAX_BYTES = 1 << 30

# Default timeouts.
_TEXTS_SECONDS = 60.0
_PAGE_SECONDS = 300.0


class HTTPEncoder(ModelEncoder, PageEncoder):
    """A model behind an HTTP endpoint with vLLM's pooling interface.

    Start such a server with ``vllm serve --task token_embed``.  A request of texts is
    ``{"model", "input"}``, and a page is sent as ``{"model", "messages"}`` with the
    picture as a data URL.  An answer is ``{"data": [{"index": 0, "data": [[...],
    ...]}, ...]}``, where ``embedding`` may replace the inner ``data``.  A server may
    add ``"grid": [rows, columns]`` and ``"special"`` to the row of a page; without
    them, only the 1,030 vectors of ColPali have a grid.

    Parameters
    ----------
    url : str
        Its user and password go into a header.
    model : str
        The name that the server gives to the model.
    token : str, optional
        Is sent as ``Authorization: Bearer``.
    timeout : float, optional
        Seconds to wait for an answer.  Default: 60 for texts, and 300 for a page.

    Raises
    ------
    ValueError
        For a URL that is not HTTP.
    """

    def __init__(
        self, url: str, model: str, *, token: str | None = None, timeout: float | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must start with http:// or https:// and name a host, got {url!r}.")
        credentials, _, host = parts.netloc.rpartition("@")
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif credentials:
            self._headers["Authorization"] = f"Basic {b64encode(unquote(credentials).encode()).decode()}"
        self.name = f"http:{model}"
        self._model = model
        self._timeout = timeout

    def matrices(self, texts: list[str], side: TextSide) -> list[NDArray[np.float32]]:
        """Return the token vectors of each text.

        Raise ConnectionError without an answer, or ValueError for an answer that has no
        token vectors.
        """
        rows = self._ask({"input": texts}, len(texts), "texts", _TEXTS_SECONDS)
        return [matrix for _, matrix in rows]

    def encode_page(self, picture: Image) -> EncodedPage:
        """Encode a page.

        Raise ConnectionError without an answer, or ValueError for an answer that has no
        vectors.
        """
        file = BytesIO()
        picture.save(file, "PNG")
        address = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": address}}]
        messages = {"messages": [{"role": "user", "content": content}]}
        [(row, vectors)] = self._ask(messages, 1, "pages", _PAGE_SECONDS)
        grid, special = row.get("grid"), row.get("special")
        if grid is None and len(vectors) == COLPALI_VECTORS:
            grid = COLPALI_GRID
        return EncodedPage(
            vectors, None if grid is None else (int(grid[0]), int(grid[1])),
            tuple(special) if isinstance(special, list) else special,
        )  # fmt: skip

    def _ask(
        self, content: dict[str, Any], count: int, kind: str, seconds: float
    ) -> list[tuple[dict[str, Any], NDArray[np.float32]]]:
        """Send a request, and return the rows of its answer with their vectors.

        `content` is what the server encodes; the name of the model is added.  The
        answer must have `count` rows with vectors, float32 (tokens, dimension).  `kind`
        is a plural noun of what is encoded, for messages.  `seconds` is the default
        timeout.
        """
        timeout = seconds if self._timeout is None else self._timeout
        body = json.dumps({"model": self._model, **content}).encode()
        request = urllib.request.Request(self._url, data=body, headers=self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = response.read(_MAX_BYTES)
        except HTTPError as error:
            with error:
                detail = error.read(300).decode("utf-8", "replace")
            raise ConnectionError(f"{self._url} answered {error.code} {error.reason}: {detail}") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(
                f"{self._url} did not answer ({reason}). Is the server running at that address?"
            ) from error
        try:
            rows = sorted(json.loads(answer)["data"], key=lambda row: row.get("index", 0))
            found = [(row, _matrix(row.get("data", row.get("embedding")))) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self._url} did not answer with token vectors ({error!r:.200}). Serve the model for token "
                "embeddings."
            ) from error
        if len(found) != count:
            raise ValueError(f"{self._url} returned {len(found)} sets of vectors for {count} {kind}.")
        return found


def _matrix(values: object) -> NDArray[np.float32]:
    matrix = np.asarray(values, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"vectors have shape {matrix.shape} instead of (tokens, dimension)")
    return matrix
