"""The installed MUVERA programs behind one call each; `settings` has the names of the golden files."""

import itertools
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

needs_muvfde = pytest.mark.skipif(find_spec("muvfde") is None, reason="muvfde, the peer, is not installed")
needs_fastembed = pytest.mark.skipif(
    find_spec("fastembed") is None, reason="fastembed, the peer, is not installed"
)


def muvfde_fdes(tokens: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Document and query FDE of muvfde, the binding of the C++ reference."""
    muvfde: Any = import_module("muvfde")

    def config() -> Any:
        made = muvfde.fixed_dimensional_encoding_config()
        made.set_num_repetitions(settings["num_repetitions"])
        made.set_num_simhash_projections(settings["num_simhash_projections"])
        made.set_seed(settings["seed"])
        if settings["kind"] == "count_sketch":
            made.set_projection_type(muvfde.projection_type.AMS_SKETCH)
            made.set_projection_dimension(settings["projection_dimension"])
        if settings["final_dimension"]:
            made.set_final_projection_dimension(settings["final_dimension"])
        return made

    document = config().set_encoding_type(muvfde.encoding_type.AVERAGE).enable_fill_empty(settings["fill"])
    return (
        np.array(muvfde.generate_fixed_dimensional_encoding(tokens, document)),
        np.array(muvfde.generate_fixed_dimensional_encoding(tokens, config())),
    )


def fastembed_encoder(settings: dict[str, Any]) -> Any:
    """fastembed's encoder: ``process_document`` and ``process_query``."""
    from fastembed.postprocess import Muvera

    return Muvera(
        dim=settings["dimension"],
        k_sim=settings["num_simhash_projections"],
        dim_proj=settings["projection_dimension"],
        r_reps=settings["num_repetitions"],
        random_seed=settings["seed"],
    )


def reference_cases(sketches: list[tuple[str, int]], shapes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Return settings of the reference's program: every number of hyperplanes, sketch, filling and final size.

    Parameters
    ----------
    sketches : list of (kind, dimension)
        Of the inner projections.
    shapes : list of (dimension, seed)
    """
    return [
        {
            "dimension": dimension,
            "num_repetitions": 3,
            "num_simhash_projections": k,
            "kind": kind,
            "projection_dimension": p,
            "fill": fill,
            "final_dimension": final,
            "seed": seed,
        }
        for k, (kind, p), fill, final, (dimension, seed) in itertools.product(
            range(7), sketches, [False, True], [0, 50], shapes
        )
    ]
