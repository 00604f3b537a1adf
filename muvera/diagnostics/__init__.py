"""What shape a model's token vectors have, what encoders find of the exact best, and what theory promises."""
