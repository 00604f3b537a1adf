"""A server of one index: search, explanations, documents, and a page, over HTTP."""
