"""The index: its contents, candidates, token store, and its folder on disk."""
