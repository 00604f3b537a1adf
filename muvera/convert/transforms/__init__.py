"""What is done to tokens on their way: pooling, centering, normalization."""
