"""What is compared: adapters with one contract, :mod:`experiments.systems.base`, by name in SYSTEMS."""
