"""A model behind an HTTP endpoint that speaks vLLM's pooling interface."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from .base import Side, from_matrices

__all__ = ["HTTPEncoder"]

# Bytes of an answer; more is no answer to a batch of texts.
_MOST_BYTES = 1 << 30


class HTTPEncoder:
    """Token vectors from ``POST {url}`` with ``{"model", "input"}``, as ``vllm serve --task token_embed`` answers.

    An answer is ``{"data": [{"index": 0, "data": [[...], ...]}, ...]}``; ``embedding`` may stand for the
    inner ``data``.

    Parameters
    ----------
    url : str
        Such as ``"http://127.0.0.1:8000/pooling"``.
    model : str
        The name that the server knows the model by.
    query_prefix, document_prefix : str
        Put before each text, as the model was trained with.
    token : str, optional
        Sent as ``Authorization: Bearer``.
    timeout : float
        Seconds to wait for one answer.

    Raises
    ------
    ValueError
        For a URL that is not HTTP.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        query_prefix: str = "",
        document_prefix: str = "",
        token: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must start with http:// or https:// and name a host, got {url!r}.")
        credentials, _, host = parts.netloc.rpartition("@")
        # A password in the address goes into a header and stays out of names and messages.
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._authorization = None if token is None else f"Bearer {token}"
        if credentials and token is None:
            self._authorization = f"Basic {b64encode(unquote(credentials).encode()).decode()}"
        prefixes = f" {query_prefix!r} {document_prefix!r}" if query_prefix or document_prefix else ""
        self.name = f"http:{model}{prefixes}"
        self._model, self._timeout = model, timeout
        self._prefixes: dict[Side, str] = {"query": query_prefix, "document": document_prefix}

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as documents."""
        return self._encode(texts, "document")

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode texts as queries."""
        return self._encode(texts, "query")

    def token_spans(self, text: str, side: Side) -> None:
        """Return None: the interface does not say where tokens come from."""
        return None

    def _encode(self, texts: Sequence[str], side: Side) -> MultiVectors:
        if not texts:
            return from_matrices([], 1)
        inputs = [self._prefixes[side] + text for text in texts]
        headers = {"Content-Type": "application/json"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        body = json.dumps({"model": self._model, "input": inputs}).encode()
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                content = response.read(_MOST_BYTES)
        except urllib.error.HTTPError as error:
            detail = error.read(300).decode("utf-8", "replace")
            raise ConnectionError(f"{self._url} answered {error.code} {error.reason}: {detail}") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ConnectionError(
                f"{self._url} gave no answer ({reason}). Is the server running at that address?"
            ) from error
        try:
            rows = sorted(json.loads(content)["data"], key=lambda row: row.get("index", 0))
            matrices = [_matrix(row.get("data", row.get("embedding"))) for row in rows]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self._url} answered something else than token vectors ({error!r:.200}). The model must be "
                "served for token embeddings."
            ) from error
        if len(matrices) != len(texts):
            raise ValueError(f"{self._url} answered {len(matrices)} sets of vectors for {len(texts)} texts.")
        return from_matrices(matrices)


def _matrix(values: Any) -> NDArray[np.float32]:
    matrix = np.asarray(values, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"vectors of shape {matrix.shape} instead of (tokens, dimension)")
    return matrix
