"""The command line ``muvera``.  Heavy imports are inside the commands, so that help is fast."""

from .app import app, main

__all__ = ["app", "main"]
