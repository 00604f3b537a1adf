"""What is compared: adapters with the contract of :mod:`experiments.systems.base`, by name in SYSTEMS."""
