"""Exact Chamfer similarity, and ranking by it with as few products as the answer needs."""
