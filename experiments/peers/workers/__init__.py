"""Worker processes: one file per library, served by the script ``serve.py``."""
