"""Queries of a learned projection: moments and landmark cells in one compiled call.

Python passes plain tuples of arrays, from which the kernels make the NamedTuples.
Passing these themselves takes three times as long, and a single query is encoded in
less than 100 microseconds.
"""

from ..kernels.jit import helper, kernel
from .kernels import Tokens
from .landmark_kernels import CellMap, project_landmark_queries
from .landmark_kernels import Directions as LandmarkDirections
from .moment_kernels import ByteMap, Directions, QueryMetric, project_query_moments


@helper
def _write_moments(tokens, first, last, moments, out):
    """Write the vectors of :func:`project_moments`, which has the same arguments."""
    project_query_moments(
        Tokens(*tokens), first, last, Directions(*moments[:2]), QueryMetric(*moments[2:4]),
        ByteMap(*moments[4:7]), ByteMap(*moments[7:]), out,
    )  # fmt: skip


@kernel
def project_moments(tokens, first, last, moments, out):
    """Write the projected moments of queries first..last to `out`, float32 (n, D).

    `tokens` has the entries of a :class:`Tokens`.  `moments` has the entries of the
    moments' :class:`Directions`, of the :class:`QueryMetric`, and of the maps of
    triangles and of sums; see :func:`project_query_moments`.
    """
    _write_moments(tokens, first, last, moments, out)


@kernel
def project_queries(tokens, first, last, moments, cells, out):
    """Write the projected moments and landmark cells of queries first..last.

    `cells` has the entries of the landmarks' :class:`Directions`, the sharpness, and
    the entries of the :class:`CellMap`; see :func:`project_landmark_queries`.
    :func:`project_moments` describes the other arguments.
    """
    _write_moments(tokens, first, last, moments, out)
    project_landmark_queries(
        Tokens(*tokens), first, last, LandmarkDirections(*cells[:5]), cells[5], CellMap(*cells[6:]), out
    )
