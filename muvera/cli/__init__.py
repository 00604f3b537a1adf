"""The command line ``muvera``: one command a file, heavy imports inside the commands."""

from .app import app, main

__all__ = ["app", "main"]
