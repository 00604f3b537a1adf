"""Exact Chamfer similarity, and reranking by it with few products; codecs, spans, fusion."""
