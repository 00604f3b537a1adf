"""Terms and bounds of metadata, by which engines filter."""

from muvera.metadata import flatten, term


def test_equal_numbers_share_a_term() -> None:
    flat = flatten({"year": [1999.0, 2001], "open": True, "author": {"name": "x"}})
    assert {term("year"), term("year", 1999), term("open", 1.0), term("author.name", "x")} < set(flat.terms)
    assert (flat.bounds["low_number_year"], flat.bounds["high_number_year"]) == (1999, 2001)
