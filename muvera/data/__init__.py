"""Token vectors, their validation and sampling, rankings, and the demo's sample."""
