"""The NumPy forward pass against one written from the definition, token by token, in float64."""

import math

import numpy as np

from muvera.texts.encoders.minilm import Bert

WIDTH, INNER, HEADS, LAYERS, VOCABULARY = 8, 12, 2, 2, 20
TEXTS = [
    np.array([1, 5, 7, 2], np.int32),
    np.array([1, 2], np.int32),
    np.array([1, 19, 19, 4, 3, 2], np.int32),
]


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (10, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        linears = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        linears |= {
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }
        for name, shape in linears.items():
            shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def oracle(ids: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(w[f"{name}.weight"].astype(np.float64) @ x + w[f"{name}.bias"])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-12)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def gelu(x: np.ndarray) -> np.ndarray:
        return np.array([value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x])

    word, position, kind = (
        w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    states = [
        norm(word[token] + position[at] + kind[0], "embeddings.LayerNorm") for at, token in enumerate(ids)
    ]
    size = WIDTH // HEADS
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        query, key, value = (
            [linear(x, f"{prefix}.attention.self.{part}") for x in states]
            for part in ("query", "key", "value")
        )
        after = []
        for i, x in enumerate(states):
            mixed = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                scores = [math.exp(query[i][part] @ k[part] / math.sqrt(size)) for k in key]
                mixed.append(sum(s * v[part] for s, v in zip(scores, value, strict=True)) / sum(scores))
            attended = linear(np.concatenate(mixed), f"{prefix}.attention.output.dense")
            x = norm(x + attended, f"{prefix}.attention.output.LayerNorm")
            inner = gelu(linear(x, f"{prefix}.intermediate.dense"))
            after.append(norm(x + linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm"))
        states = after
    return np.array(states)


def test_hidden_states_match_the_definition() -> None:
    found = Bert(weights(), HEADS).hidden_states(TEXTS)
    for states, ids in zip(found, TEXTS, strict=True):
        assert states.dtype == np.float32
        # Float32 sums of at most 12 terms of size about 3, through two layers.
        np.testing.assert_allclose(states, oracle(ids, weights()), atol=2e-4)


def test_batch_mates_do_not_matter() -> None:
    model = Bert(weights(), HEADS)
    for together, ids in zip(model.hidden_states(TEXTS), TEXTS, strict=True):
        # Up to rounding: BLAS blocks a product by its shape.
        np.testing.assert_allclose(together, model.hidden_states([ids])[0], atol=1e-4)
