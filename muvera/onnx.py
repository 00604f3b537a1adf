"""join: one ONNX file from token ids to FDEs.  Needs the extra "onnx"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .fde.encoder import onnx_model
from .fde.graph import FDE, MASK, OPSET, TOKENS, write_model
from .utils.checks import as_path, import_extra, require_choice

if TYPE_CHECKING:
    import onnx

    from .fde.encoder import FDEEncoder
    from .fde.tasks import Side

__all__ = ["join"]


def join(
    model: str | os.PathLike[str],
    encoder: FDEEncoder,
    path: str | os.PathLike[str],
    side: Side = "queries",
    *,
    normalize: bool = False,
    output: str | None = None,
    mask: str | None = "attention_mask",
    overwrite: bool = False,
) -> None:
    """Join the ONNX file of a token model with an encoder, and write both as one file.

    The new file has the inputs of the model, such as token ids, and the output `fde`,
    float32 (texts, vector_dimension).

    Parameters
    ----------
    model : path
        The model's ONNX file, of opset 13 or later.  One of its outputs has the token
        vectors, float32 (texts, n, dimension).
    encoder : FDEEncoder
        An encoder that was fitted to token vectors of this model.
    path : path
        The file to create.
    side : {"queries", "documents"}
        What the file encodes.
    normalize : bool
        Scale token vectors to length 1.  The encoder's documents must have been scaled,
        too.  Models of sentence-transformers usually return vectors of any length;
        those of PyLate return unit vectors.
    output : str, optional
        Name of the output with the token vectors.  Default: the only one with three
        axes.
    mask : str, optional
        Name of the model's input that is 1 for tokens, and 0 for padding.  With None,
        the new file gets a further input `mask`, int64 (texts, n): for models that pay
        attention to tokens that do not count, such as the punctuation of documents.
    overwrite : bool
        Replace a file.

    Raises
    ------
    ImportError
        Without the extra "onnx".
    ValueError
        If the encoder is not fitted, `model` is not an ONNX file of opset 13 or later,
        its output has another dimension, or it has no such input or output.
    FileNotFoundError
        If `model` is not a file.
    FileExistsError
        If `path` exists and `overwrite` is False, or if it is a folder.
    """
    library = import_extra("onnx", "onnx", "Joining ONNX files")
    source = as_path(model)
    first = _loaded(source)
    opset = max([each.version for each in first.opset_import if each.domain in ("", "ai.onnx")], default=0)
    if opset < OPSET:
        raise ValueError(
            f"{source} has opset {opset}, but an encoder needs {OPSET} or later. Export the model again, or "
            "convert it with onnx.version_converter."
        )
    tokens = _token_output(first.graph, encoder.config.dimension, output, source)
    second = onnx_model(encoder, side, opset=opset, normalize=normalize)
    second.ir_version = first.ir_version
    pairs = [(tokens, TOKENS)]
    if mask is not None:
        require_choice("mask", mask, [value.name for value in first.graph.input])
        # Only an output of the first model can be joined to an input of the second.
        kind, name = library.TensorProto.INT64, f"muvera/{mask}"
        first.graph.node.append(library.helper.make_node("Cast", [mask], [name], to=kind))
        first.graph.output.append(library.helper.make_tensor_value_info(name, kind, None))
        pairs.append((name, MASK))
    compose = import_extra("onnx.compose", "onnx", "Joining ONNX files")
    joined = compose.merge_models(first, second, pairs, outputs=[FDE], producer_name="muvera")
    opsets = {each.domain: each for each in joined.opset_import}
    del joined.opset_import[:]
    joined.opset_import.extend(opsets.values())
    write_model(joined, path, overwrite)


def _loaded(path: Path) -> onnx.ModelProto:
    """Load an ONNX file, or raise FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Give the ONNX file of a token model.")
    library = import_extra("onnx", "onnx", "Joining ONNX files")
    try:
        model: onnx.ModelProto = library.load(path)
    except import_extra("google.protobuf.message", "onnx", "Joining ONNX files").DecodeError:
        raise ValueError(f"{path} is damaged, or not an ONNX file.") from None
    return model


def _token_output(graph: onnx.GraphProto, dimension: int, output: str | None, source: Path) -> str:
    """Return the name of the output with token vectors; `output` may name it."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.output}
    if output is None:
        found = [name for name, shape in shapes.items() if len(shape) == 3]
        if len(found) != 1:
            raise ValueError(
                f"{source} must have one output of token vectors, with three axes, but {len(found)} of its "
                f"outputs have three: {', '.join(shapes)}. Name it with output=."
            )
        output = found[0]
    require_choice("output", output, shapes)
    # The size of an axis with a name is 0.
    columns = shapes[output][-1].dim_value if shapes[output] else 0
    if columns not in (0, dimension):
        raise ValueError(
            f"The output {output!r} of {source} has {columns} columns, but the encoder was fitted to tokens "
            f"with {dimension}. Fit an encoder to this model's token vectors."
        )
    return output
