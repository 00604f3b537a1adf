"""The compared systems, by name in SYSTEMS.

They are subclasses of :class:`experiments.systems.base.System`.
"""
