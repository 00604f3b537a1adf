"""A model of one's own: any object with these three methods and a name."""

import re
import zlib

import numpy as np

from muvera import MultiVectors, TextIndex


class WordVectors:
    """A fixed random vector for each word: stands for a real late-interaction model."""

    name = "word-vectors"

    def encode_documents(self, texts):
        return MultiVectors.from_arrays([self._matrix(text) for text in texts], dimension=32)

    def encode_queries(self, texts):
        return self.encode_documents(texts)

    def token_spans(self, text, side):
        return [word.span() for word in re.finditer(r"\w+", text)]

    def _matrix(self, text):
        words = re.findall(r"\w+", text.lower())
        rows = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=32) for word in words]
        matrix = np.array(rows, np.float32).reshape(-1, 32)
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


index = TextIndex.build(["a red apple", "a green pear", "red wine"], WordVectors())
for hit in index.search("red pear"):
    print(f"{hit.score:.2f}  {hit.text}")
