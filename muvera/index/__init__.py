"""The index: its contents, candidates, token store, and the folder on the disk."""
