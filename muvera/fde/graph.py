"""Graph: an ONNX model whose nodes are written like NumPy.

Each step of an encoder writes its formula with values of one graph, and the operators
of these values add nodes.  Nodes are valid in opset 13 and in all later ones, but for
ReduceMax.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..utils.atomic_files import atomic_file
from ..utils.checks import import_extra

if TYPE_CHECKING:
    import onnx

#: The opset of a graph, the first one in which sums take their axes as an input, and
#: the version of the ONNX format at that time.  ONNX Runtime 1.6 reads both.
OPSET, IR_VERSION = 13, 7

#: Names of the inputs and the output of a model.
TOKENS, MASK, FDE = "tokens", "mask", "fde"

# From this opset on, ReduceMax has its axes as an input, too.
_AXES_AS_INPUT = 18

#: Numbers below it are divided as if they were this one, which leaves zeros zero.
TINY = 1e-33


class Value:
    """A tensor of a graph.  Other operands may be values, arrays or numbers."""

    __array_ufunc__ = None  # NumPy's operators leave theirs to this class

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def op(self, kind: str, *others: Value | ArrayLike, **attributes: Any) -> Value:
        """Return the first output of a new node; this value is its first input."""
        return self.graph.op(kind, self, *others, **attributes)

    def __add__(self, other: Value | ArrayLike) -> Value:
        return self.op("Add", other)

    def __sub__(self, other: Value | ArrayLike) -> Value:
        return self.op("Sub", other)

    def __mul__(self, other: Value | ArrayLike) -> Value:
        return self.op("Mul", other)

    def __truediv__(self, other: Value | ArrayLike) -> Value:
        return self.op("Div", other)

    def __rmul__(self, other: ArrayLike) -> Value:
        return self.op("Mul", other)

    def __rsub__(self, other: ArrayLike) -> Value:
        return self.graph.op("Sub", other, self)

    def __rtruediv__(self, other: ArrayLike) -> Value:
        return self.graph.op("Div", other, self)

    def __matmul__(self, other: Value | ArrayLike) -> Value:
        return self.op("MatMul", other)

    def __gt__(self, other: Value | ArrayLike) -> Value:
        return self.op("Greater", other)

    def where(self, yes: Value | ArrayLike, no: Value | ArrayLike) -> Value:
        """Return `yes` where this value is true, and `no` elsewhere."""
        return self.op("Where", yes, no)

    def equals(self, other: Value | ArrayLike) -> Value:
        """Return 1 where both are equal, and 0 elsewhere."""
        return self.op("Equal", other).floats()

    def floats(self) -> Value:
        """Return the value as float32."""
        return self.op("Cast", to=self.graph.library.TensorProto.FLOAT)

    def doubles(self) -> Value:
        """Return the value as float64."""
        return self.op("Cast", to=self.graph.library.TensorProto.DOUBLE)

    def reshape(self, *shape: int) -> Value:
        """Reshape; 0 keeps the size at its position, and -1 stands for the rest."""
        return self.op("Reshape", np.array(shape))

    def transpose(self, *order: int) -> Value:
        """Permute the axes."""
        return self.op("Transpose", perm=order)

    def sum(self, *axes: int, keepdims: bool = False) -> Value:
        """Return the sums over axes."""
        return self.op("ReduceSum", np.array(axes), keepdims=int(keepdims))

    def max(self, *axes: int, keepdims: bool = False) -> Value:
        """Return the largest entries along axes."""
        if self.graph.opset >= _AXES_AS_INPUT:
            return self.op("ReduceMax", np.array(axes), keepdims=int(keepdims))
        return self.op("ReduceMax", axes=axes, keepdims=int(keepdims))

    def length(self) -> Value:
        """Return the lengths along the last axis, which gets size 1."""
        return (self * self).sum(-1, keepdims=True).op("Sqrt")

    def rounded(self, most: int, *axes: int) -> tuple[Value, Value]:
        """Return integers up to `most`, the largest entry along `axes`, and their unit.

        They are rounded as kernels do, to bytes (`most` is 127) or to 16 bits.
        """
        peak = self.op("Abs").max(*axes, keepdims=True)
        scaled = self * (most / peak.op("Max", np.float32(TINY)))
        if most == 127:
            return (scaled + 128.5).op("Floor") - 128.0, peak / most
        return scaled.op("Round"), peak / most

    def times_bytes(self, matrix: NDArray[Any], units: NDArray[np.float32]) -> Value:
        """Return the product of rows (b, n), rounded to 16 bits, and bytes (n, D).

        This is the product of :func:`muvera.kernels.byte_product.multiply_by_bytes`.
        """
        numbers, unit = self.rounded(32767, -1)
        return numbers @ self.graph.bytes(matrix) * units * unit


class Graph:
    """Nodes and constants of an ONNX model."""

    def __init__(self, opset: int = OPSET) -> None:
        self.library = import_extra("onnx", "onnx", "Writing ONNX files")
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = {}

    def op(self, kind: str, *inputs: Value | ArrayLike, **attributes: Any) -> Value:
        """Add a node, and return its output."""
        return self.ops(kind, *inputs, **attributes)[0]

    def ops(self, kind: str, *inputs: Value | ArrayLike, outputs: int = 1, **attributes: Any) -> list[Value]:
        """Add a node, and return all its outputs."""
        names = [(each if isinstance(each, Value) else self.constant(each)).name for each in inputs]
        made = [f"muvera/{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(self.library.helper.make_node(kind, names, made, name=made[0], **attributes))
        return [Value(self, name) for name in made]

    def bytes(self, matrix: NDArray[Any]) -> Value:
        """Return a matrix of bytes as floats; the file contains the bytes.

        ONNX Runtime casts constants when it loads a file.  It would repeat a node
        DequantizeLinear for every text.
        """
        return self.constant(matrix).floats()

    def constant(self, value: ArrayLike) -> Value:
        """Return an array, or a number as float32; of float64, as float32."""
        array = np.asarray(value)
        if array.dtype == np.float64 or isinstance(value, int | float):
            array = array.astype(np.float32)
        key = array.dtype, array.shape, array.tobytes()
        if key not in self.constants:
            name = f"muvera/constant_{len(self.constants)}"
            self.constants[key] = self.library.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return Value(self, self.constants[key].name)

    def texts(self) -> Texts:
        """Return the texts of the inputs, with one row more that is not a token.

        So no text is empty for the nodes.
        """
        rows = Value(self, TOKENS).op("Pad", np.array([0, 0, 0, 0, 1, 0]))
        mask = Value(self, MASK).op("Pad", np.array([0, 0, 0, 1])).op("Unsqueeze", np.array([2]))
        present = mask.op("Cast", to=self.library.TensorProto.BOOL)
        mask = present.floats()
        return Texts(present.where(rows, np.float32(0)), present, mask, mask.sum(1))

    def model(self, output: Value, dimension: int, size: int, properties: dict[str, str]) -> onnx.ModelProto:
        """Return the model whose output `fde` (b, `size`) is this value."""
        helper, kinds = self.library.helper, self.library.TensorProto
        self.nodes.append(helper.make_node("Identity", [output.name], [FDE], name="muvera/fde"))
        infos = [
            helper.make_tensor_value_info(TOKENS, kinds.FLOAT, ["batch", "tokens", dimension]),
            helper.make_tensor_value_info(MASK, kinds.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info(FDE, kinds.FLOAT, ["batch", size]),
        ]
        graph = helper.make_graph(self.nodes, "muvera", infos[:2], infos[2:], [*self.constants.values()])
        opsets = [helper.make_opsetid("", self.opset)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, producer_name="muvera")
        model.ir_version = IR_VERSION
        properties = {**properties, "dimension": str(dimension)}
        helper.set_model_props(model, {f"muvera.{name}": value for name, value in properties.items()})
        return model


def write_model(model: onnx.ModelProto, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Write a model to a file in one step."""
    with atomic_file(path, overwrite) as beside:
        beside.write_bytes(model.SerializeToString())


class Texts(NamedTuple):
    """The token vectors of texts in a graph."""

    #: float32 (b, n, d); rows that are not tokens are zero.
    tokens: Value
    #: True for tokens, (b, n, 1).
    present: Value
    #: 1 for tokens, else 0, float32 (b, n, 1).
    mask: Value
    #: Number of tokens of each text, float32 (b, 1).
    counts: Value

    @property
    def graph(self) -> Graph:
        """The graph of the values."""
        return self.tokens.graph

    def sum(self) -> Value:
        """Return the sums of the tokens, (b, d), summed in float64 as in kernels."""
        return self.tokens.doubles().sum(1).floats()

    def centered(self, rows: Value) -> Value:
        """Return rows (b, n, any), zero without a token, minus each text's mean row."""
        mean = rows.sum(1, keepdims=True) / self.counts.op("Max", np.float32(1)).reshape(0, 1, 1)
        return (rows - mean) * self.mask
