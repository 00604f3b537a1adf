"""Exact Chamfer similarity, and pruned reranking by it; codecs, spans, fusion."""
