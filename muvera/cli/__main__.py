"""``python -m muvera.cli`` is the same as ``muvera``."""

from .app import main

if __name__ == "__main__":
    main()
