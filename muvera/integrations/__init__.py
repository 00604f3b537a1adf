"""Adapters for LangChain, Haystack, LlamaIndex, MTEB, PyLate and others."""
