"""HTTP server of one index: search, explanations, documents, and a page."""
