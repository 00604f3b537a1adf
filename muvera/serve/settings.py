"""What a server may do, and how much of it one request may ask for."""

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
        What ``Authorization: Bearer`` must say to change documents.
    writable : bool
        Whether documents can be added, updated and deleted; needs a token.
    threads : int
        Requests that search at the same time; others wait.
    timeout : float
        Seconds until a request is answered with 504.
    max_body_bytes : int
        Larger requests are refused.
    max_queries, max_k, max_candidates, max_documents, max_text_characters, max_tokens : int
        Of one request: queries, hits for each, candidates, documents to write, characters of each text, and
        token vectors where vectors are given.
    """

    token: str | None = None
    writable: bool = False
    threads: int = 2
    timeout: float = 30.0
    max_body_bytes: int = 16 << 20
    max_queries: int = 64
    max_k: int = 1000
    max_candidates: int = 10_000
    max_documents: int = 1000
    max_text_characters: int = 1_000_000
    max_tokens: int = 65_536

    def __post_init__(self) -> None:
        for name in (
            "threads", "max_body_bytes", "max_queries", "max_k", "max_candidates", "max_documents",
            "max_text_characters", "max_tokens",
        ):  # fmt: skip
            require_int(name, getattr(self, name), 1)
        require_number("timeout", self.timeout, 0.001)
        if self.writable and not self.token:
            raise ValueError(
                "A writable server needs a token, else anybody who reaches it could change the index. Set "
                "MUVERA_TOKEN or give --token-file."
            )
