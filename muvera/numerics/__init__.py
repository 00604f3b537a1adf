"""Matrix products and eigenvectors with the same bits on any number of threads."""
