"""Sources: what a reader returns, token vectors that are read a batch at a time."""
