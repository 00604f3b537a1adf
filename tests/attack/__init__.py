"""Attacks: damaged files, killed processes, searches beside changes.

``MUVERA_ATTACK=1000`` runs the long version.
"""
