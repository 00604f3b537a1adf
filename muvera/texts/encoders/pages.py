"""Page encoders: models that turn page pictures and queries into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...utils.checks import import_extra
from .base import Encoder, TableEncoder
from .libraries import FastembedModel

if TYPE_CHECKING:
    from PIL.Image import Image

# Vectors of a page of ColPali: a grid, and 6 of the prompt.
COLPALI_GRID = (32, 32)
COLPALI_VECTORS = 1030

# Rows and columns of the patches of one tile of ColModernVBERT.
_TILE = 8


class EncodedPage(NamedTuple):
    """The vectors of a page picture.

    Parameters
    ----------
    vectors : float32 (tokens, dimension)
        Vectors of length 1.
    grid : tuple of int or None
        Rows and columns of the patches, whose vectors come in reading order.
    special : int, tuple of int or None
        Number of vectors without a place on the page; see :class:`muvera.pages.Page`.
    """

    vectors: NDArray[Any]
    grid: tuple[int, int] | None = None
    special: int | tuple[int, int] | None = None


@runtime_checkable
class PageEncoder(Encoder, Protocol):  # numpydoc ignore=PR01
    """A model that turns page pictures and queries into vectors.

    Attributes
    ----------
    name : str
        Identifies everything that changes the vectors.  An index requires it.
    """

    def encode_page(self, picture: Image) -> EncodedPage:
        """Encode a page.

        Parameters
        ----------
        picture : PIL.Image.Image
            The page.

        Returns
        -------
        EncodedPage
        """
        ...

    def query_spans(self, text: str) -> list[tuple[int, int]] | None:
        """Return the characters of each vector of a query, for maps of words.

        Parameters
        ----------
        text : str
            The query.

        Returns
        -------
        list of (start, stop), or None
            One for each vector; vectors of no characters have start == stop.  None if
            the model does not return them.
        """
        return None


class TextLayerEncoder(PageEncoder):
    """Rows of a text encoder's table for the text layers of pages.

    Pictures are not read, so a page without a text layer has no tokens, and no page has
    maps.  The name is the text encoder's.
    """

    def __init__(self, text: TableEncoder) -> None:
        self.text = text
        self.name = text.name

    def encode_page(self, picture: Image) -> EncodedPage:
        """Raise ValueError: only the index encodes text layers."""
        raise ValueError(
            f"The encoder {self.name!r} reads the text layer of a page, not its picture. Use it with "
            "PageIndex."
        )

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode queries."""
        return self.text.encode_queries(texts)

    def query_spans(self, text: str) -> list[tuple[int, int]] | None:
        """Return the characters of each vector of a query."""
        return self.text.token_spans(text, "query")


class FastembedPageEncoder(FastembedModel, PageEncoder):
    """ColPali or ColModernVBERT, run by fastembed on onnxruntime, without torch.

    The model is loaded at its first use, and downloaded if it is not on this machine.
    Default name: ``"fastembed:model"``.  Raise ImportError without fastembed.
    """

    _kind = "LateInteractionMultimodalEmbedding"

    @property
    def download_gigabytes(self) -> float | None:
        """Gigabytes that the first use downloads; None if there is nothing to download.

        Also None for a name that fastembed does not know, which fails at its first use.
        """
        hub = import_extra("huggingface_hub", "fastembed", "This encoder")
        folder = import_extra("fastembed.common.utils", "fastembed", "This encoder").define_cache_dir()
        for known in self._library.LateInteractionMultimodalEmbedding.list_supported_models():
            if known["model"].lower() == self._given.lower():
                cached = hub.try_to_load_from_cache(known["sources"]["hf"], known["model_file"], folder)
                return None if cached else float(known["size_in_GB"])
        return None

    def encode_page(self, picture: Image) -> EncodedPage:
        """Encode a page.

        The patches of ColModernVBERT come in tiles; they are put in reading order.
        """
        vectors = np.asarray(next(iter(self._model.embed_image([picture]))), np.float32)
        if len(vectors) == COLPALI_VECTORS:
            return EncodedPage(vectors, COLPALI_GRID)
        placed = _order_of_tiles(getattr(self._model, "model", None), picture, len(vectors))
        if placed is None:
            return EncodedPage(vectors)
        order, grid = placed
        return EncodedPage(vectors[order], grid)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode queries."""
        return MultiVectors.from_arrays([next(iter(self._model.embed_text([text]))) for text in texts])

    def query_spans(self, text: str) -> list[tuple[int, int]] | None:
        """Return the characters of each vector of a query.

        None for a model without a tokenizer.
        """
        model: Any = getattr(self._model, "model", None)
        if not hasattr(model, "tokenize"):
            return None
        prefix = len(getattr(model, "BOS_TOKEN", "") + getattr(model, "QUERY_PREFIX", ""))
        spans = []
        for start, stop in model.tokenize([text])[0].offsets:
            first, last = (min(max(edge - prefix, 0), len(text)) for edge in (start, stop))
            spans.append((first, last))
        return spans


def _order_of_tiles(
    model: Any, picture: Image, count: int
) -> tuple[NDArray[np.int64], tuple[int, int]] | None:
    """Return positions in reading order, other ones last, and the grid of the page.

    None if the model has no tiles, or another number of vectors.
    """
    if not hasattr(model, "_build_input_ids_for_image"):
        return None
    facts: dict[str, Any] = {}
    model.processor([picture], metadata=facts)
    rows, columns = facts["image_grid"][0]
    ids = model._build_input_ids_for_image(rows, columns)
    patches = np.flatnonzero(ids == model.tokenizer.token_to_id("<image>"))
    tiles = max(rows * columns, 1)  # an undivided page has only the picture of the whole
    if len(ids) != count or len(patches) < tiles * _TILE * _TILE:
        return None
    down, right = max(rows, 1), max(columns, 1)
    by_tile = patches[: tiles * _TILE * _TILE].reshape(down, right, _TILE, _TILE)
    order = by_tile.transpose(0, 2, 1, 3).reshape(-1)
    return np.append(order, np.setdiff1d(np.arange(count), order)), (down * _TILE, right * _TILE)


class ColPaliEngineEncoder(PageEncoder):
    """ColPali, ColQwen2 or a successor, run by colpali-engine and torch.

    The name of the checkpoint, such as ``"vidore/colqwen2-v1.0"``, chooses the model's
    class; raise ValueError if colpali-engine has none.  Default device: a GPU if torch
    finds one.  Raise ImportError without colpali-engine.
    """

    def __init__(self, checkpoint: str, device: str | None = None) -> None:
        self.name = f"colpali-engine:{checkpoint}"
        try:
            models = import_module("colpali_engine.models")
            self._torch = import_module("torch")
        except ImportError as error:
            raise ImportError(
                f"{checkpoint} needs colpali-engine, but importing it fails ({error}). Install it with: pip "
                "install colpali-engine"
            ) from error
        words = checkpoint.lower().replace("-", "").replace("_", "")
        known = [
            name for name in dir(models) if name.startswith("Col") and hasattr(models, f"{name}Processor")
        ]
        fitting = [name for name in known if name.lower() in words]
        if not fitting:
            raise ValueError(f"colpali-engine has no model for {checkpoint!r}. It has {', '.join(known)}.")
        name = max(fitting, key=len)  # ColQwen2 is a part of ColQwen2_5
        chosen = device or ("cuda" if self._torch.cuda.is_available() else "cpu")
        self._model = getattr(models, name).from_pretrained(checkpoint, device_map=chosen).eval()
        self._processor = getattr(models, f"{name}Processor").from_pretrained(checkpoint)

    def encode_page(self, picture: Image) -> EncodedPage:
        """Encode a page, without a grid if the processor does not report it."""
        batch = self._processor.process_images([picture])
        vectors = self._vectors(batch)
        grid = _grid_of(batch)
        token = getattr(self._processor, "image_token_id", None)
        if token is None or "input_ids" not in batch:
            return EncodedPage(vectors, COLPALI_GRID if len(vectors) == COLPALI_VECTORS else None)
        patches = np.flatnonzero(np.asarray(batch["input_ids"][0].cpu()) == token)
        grid = COLPALI_GRID if grid is None and len(patches) == np.prod(COLPALI_GRID) else grid
        if grid is None or len(patches) != np.prod(grid) or np.any(np.diff(patches) != 1):
            return EncodedPage(vectors)
        return EncodedPage(vectors, grid, (int(patches[0]), len(vectors) - int(patches[-1]) - 1))

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode queries."""
        return MultiVectors.from_arrays(
            [self._vectors(self._processor.process_queries([text])) for text in texts]
        )

    def _vectors(self, batch: Any) -> NDArray[np.float32]:
        with self._torch.no_grad():
            found = self._model(**batch.to(self._model.device))[0]
        return np.asarray(found.float().cpu(), np.float32)


def _grid_of(batch: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the grid that a Qwen processor reports; it merges patches by 2 x 2."""
    if "image_grid_thw" not in batch:
        return None
    _, rows, columns = (int(number) for number in batch["image_grid_thw"][0])
    return rows // 2, columns // 2
