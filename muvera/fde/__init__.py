"""Fixed Dimensional Encodings (MUVERA): SimHash partitions and random projections."""
