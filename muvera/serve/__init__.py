"""HTTP server of one index: search, explanations, documents, and a page."""

from __future__ import annotations

from dataclasses import dataclass

from ..utils.checks import require_int, require_number

__all__ = ["ServerSettings"]


@dataclass(frozen=True)
class ServerSettings:
    """Limits and rights of a server.

    Parameters
    ----------
    token : str, optional
        Bearer token that changes need.
    read_token : str, optional
        Bearer token that searches and documents need; `token` is also accepted.  Default: anyone may read.
    writable : bool
        Allow documents to be added, updated and deleted; needs a token.
    threads : int
        Concurrent searches.
    timeout : float
        Seconds after which a search gets status 504, and a change that has not begun gets 503.
    body_timeout : float
        Seconds after which a connection without a complete request is closed.
    max_body_bytes, max_search_bytes : int
        Bytes of a request with `token`, and of any other.
    max_connections : int
        If there are more, the oldest idle connection is closed.
    max_queries, max_k, max_hits, max_candidates, max_documents, max_text_characters, max_tokens : int
        Limits of one request: queries or explanations, hits per query, total hits, candidates, documents to write,
        characters of a text, and token vectors.
    max_read_characters : int
        Limit of one request: total characters of the documents that it reads.
    """

    token: str | None = None
    read_token: str | None = None
    writable: bool = False
    threads: int = 2
    timeout: float = 30.0
    body_timeout: float = 20.0
    max_body_bytes: int = 16 << 20
    max_search_bytes: int = 1 << 20
    max_connections: int = 512
    max_queries: int = 64
    max_k: int = 1000
    max_hits: int = 10_000
    max_candidates: int = 10_000
    max_documents: int = 1000
    max_text_characters: int = 1_000_000
    max_tokens: int = 65_536
    max_read_characters: int = 16_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "threads" or name.startswith("max_"):
                require_int(name, value, 1)
        require_number("timeout", self.timeout, 0.001)
        require_number("body_timeout", self.body_timeout, 0.001)
        if self.writable and not self.token:
            raise ValueError(
                "A writable server needs a token, or anyone who reaches it could change the index. Set MUVERA_TOKEN, "
                "or give token= in Python."
            )
