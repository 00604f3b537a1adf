"""Speed beside peers and baselines, interleaved in one run."""
