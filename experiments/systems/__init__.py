"""The compared systems: subclasses of :class:`experiments.systems.base.System`, by name in SYSTEMS."""
