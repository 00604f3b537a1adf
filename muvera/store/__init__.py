"""Where an index lives: token segments for reranking, and the folder on the disk."""
