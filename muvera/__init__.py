"""Late-interaction retrieval with an ordinary inner-product index."""
