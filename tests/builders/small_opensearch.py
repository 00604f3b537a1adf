"""A server that answers OpenSearch's requests for one index, so that printed lines of curl can be run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np

__all__ = ["SmallOpenSearch", "running_opensearch"]


class SmallOpenSearch:
    """What the index has; answers follow OpenSearch's pages of its bulk and search requests."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.visible: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, str]] = []

    def answer(self, verb: str, path: str, kind: str, content: bytes) -> tuple[int, Any]:
        """Return the status and the answer of a request."""
        self.requests.append((verb, path, kind))
        match verb, path.partition("?")[0]:
            case "PUT", "/vectors":
                self.body = json.loads(content)
                return 200, {"acknowledged": True}
            case "POST", "/vectors/_bulk":
                return 200, {"errors": self._bulk(content)}
            case "POST", "/vectors/_refresh":
                self.visible = dict(self.documents)
                return 200, {}
            case "POST", "/vectors/_search":
                return 200, self._search(json.loads(content))
        return 405, {"error": f"{verb} {path}"}

    def _bulk(self, content: bytes) -> bool:
        assert content.endswith(b"\n")
        lines = [json.loads(line) for line in content.splitlines()]
        field = self.body["mappings"]["properties"]["vector"]
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            if len(document["vector"]) != field["dimension"]:
                return True
            self.documents[action["index"]["_id"]] = document
        return False

    def _search(self, request: dict[str, Any]) -> Any:
        assert self.body["mappings"]["properties"]["vector"]["method"]["space_type"] == "innerproduct"
        wanted = request["query"]["knn"]["vector"]
        names = list(self.visible)
        vectors = np.array([self.visible[name]["vector"] for name in names])
        best = np.argsort(-(vectors @ wanted["vector"]))[: min(wanted["k"], request["size"])]
        sources = [{field: self.visible[names[i]][field] for field in request["_source"]} for i in best]
        hits = [{"_id": names[i], "_source": source} for i, source in zip(best, sources, strict=True)]
        return {"hits": {"hits": hits}}


@contextmanager
def running_opensearch() -> Iterator[tuple[str, SmallOpenSearch]]:
    """Start a server, and yield its URL and what it has."""
    store = SmallOpenSearch()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type") or ""
            status, found = store.answer(self.command, self.path, kind, content)
            body = (json.dumps(found) + "\n").encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = _respond  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
