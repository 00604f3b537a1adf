"""Make torch/, small files as torch 2.11 writes them.  Run: python make_torch_golden.py

expected.npz holds the numbers, bfloat16 as float32.
"""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent / "torch_files"
KINDS = (
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "uint16",
)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must never run",)


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    base = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)) * 40
    expected: dict[str, Any] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        torch.save(value, HERE / f"{name}.pt")
        whole = value.float() if value.dtype == torch.bfloat16 else value
        expected[name] = whole.detach().numpy()

    for kind in KINDS:
        unsigned = kind in ("uint8", "uint16", "bool")
        keep(kind, (base.abs() if unsigned else base).to(getattr(torch, kind)))
    keep("sliced", base[2:5, 1:4])
    keep("transposed", base.T)
    keep("scalar", base[3, 2])
    keep("empty", base[:0])
    keep("gradient", base.clone().requires_grad_())
    torch.save(torch.nn.Parameter(base), HERE / "parameter.pt")
    torch.save((base[:2], base.half()), HERE / "pair.pt")
    torch.save(list(torch.unbind(base.bfloat16().reshape(3, 2, 5))), HERE / "list.pt")
    torch.save({"a": base, "n": 3}, HERE / "dict.pt")
    with (HERE / "stream.pt").open("wb") as stream:  # its root folder is then "archive"
        torch.save(base, stream)
    torch.save(base, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(Malicious(), HERE / "malicious.pt", pickle_module=pickle)
    torch.save(torch.nn.Linear(2, 2), HERE / "module.pt")
    np.savez_compressed(HERE / "expected.npz", base=base.numpy(), **expected)


if __name__ == "__main__":
    main()
