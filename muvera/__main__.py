"""``python -m muvera`` is the same as the command ``muvera``."""

from .cli import main

if __name__ == "__main__":
    main()
