"""Adapters for LangChain, Haystack, LlamaIndex, MTEB, sentence-transformers and PyLate."""
