"""muvfde, the binding of the C++ reference, behind one call."""

from importlib import import_module
from typing import Any

import numpy as np


def muvfde_fdes(tokens: np.ndarray, case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    muvfde: Any = import_module("muvfde")

    def config() -> Any:
        made = muvfde.fixed_dimensional_encoding_config()
        for name in ("num_repetitions", "num_simhash_projections", "seed"):
            getattr(made, f"set_{name}")(case[name])
        if case["kind"] == "count_sketch":
            made.set_projection_type(muvfde.projection_type.AMS_SKETCH)
            made.set_projection_dimension(case["projection_dimension"])
        if case["final_dimension"]:
            made.set_final_projection_dimension(case["final_dimension"])
        return made

    encode = muvfde.generate_fixed_dimensional_encoding
    document = config().set_encoding_type(muvfde.encoding_type.AVERAGE).enable_fill_empty(case["fill"])
    return np.array(encode(tokens, document)), np.array(encode(tokens, config()))
