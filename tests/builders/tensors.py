"""A stand-in for a tensor of any library."""

from typing import Any

import numpy as np


class FakeTensor:
    """The part of a torch tensor that readers may use.

    It is on a device from which it must be copied.
    """

    def __init__(self, array: np.ndarray, dtype: str = "torch.float32", device: str = "cuda:0") -> None:
        self._array, self.dtype, self.device = array, dtype, device

    ndim = property(lambda self: self._array.ndim)
    shape = property(lambda self: self._array.shape)

    def detach(self) -> "FakeTensor":
        return self

    def cpu(self) -> "FakeTensor":
        return FakeTensor(self._array, self.dtype, "cpu")

    def float(self) -> "FakeTensor":
        return FakeTensor(self._array.astype(np.float32), "torch.float32", self.device)

    def numpy(self) -> np.ndarray:
        if self.device != "cpu":
            raise TypeError("can't convert a cuda tensor to numpy")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self._array

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("can't convert a cuda tensor to numpy")
