"""What every other part may use: files written atomically, threads, checks of arguments, optional imports."""
