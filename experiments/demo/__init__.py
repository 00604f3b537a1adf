"""How the bundled demo sample is made."""
