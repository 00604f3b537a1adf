"""The choice of the graph's library while the package is built: hnswlib comes as source alone."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

COMPILERS = ("c++", "g++", "clang++", "cl")


def can_compile() -> bool:
    """Whether a C++ compiler and Python's headers are here."""
    chosen = os.environ.get("CXX", "").split()[:1]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(shutil.which(name) for name in (*chosen, *COMPILERS))


class GraphHook(MetadataHookInterface):
    """Dependencies: those of pyproject.toml, and the graph's library that can be installed here."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add hnswlib where it can be compiled, and usearch elsewhere."""
        if can_compile():
            graph = self.config["compiled-graph"]
        else:
            graph = self.config["ready-made-graph"]
            print(
                "No C++ compiler and headers of Python were found, so that usearch is installed as the graph "
                "in place of hnswlib.",
                file=sys.stderr,
            )
        metadata["dependencies"] = [*self.config["dependencies"], graph]
