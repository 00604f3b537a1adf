"""Conditions of the filter language as SQL on the tables of :class:`muvera.texts.database.DocumentDatabase`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..metadata.filters import COMPARISONS, Filter, build_condition, kind_of

__all__ = ["to_sql"]


def to_sql(condition: Filter) -> tuple[str, list[Any]]:
    """Translate a condition into an SQL expression on ``documents`` and its parameters.

    Parameters
    ----------
    condition : mapping
        See :mod:`muvera.metadata.filters`.  An empty one keeps every document.

    Returns
    -------
    expression : str
        On the column ``row`` of the tables ``documents`` and ``metadata_values`` of
        :class:`muvera.texts.database.DocumentDatabase`; never NULL.
    parameters : list
        Values of its question marks, in order.

    Raises
    ------
    FilterError
        For an unknown operator, a value of the wrong type, or a condition that is nested too deep.

    Examples
    --------
    >>> to_sql({"year": {"$gte": 2000}})[1]
    ['year', 'number', 2000]
    """
    return build_condition(condition, _SQL()).as_set


#: An SQL expression and its parameters.
_Expression = tuple[str, list[Any]]


class _Term(NamedTuple):
    """A condition in the two forms in which SQLite can answer it.

    Parameters
    ----------
    as_set : expression
        Reads the rows that satisfy it from the index of values: right where they are few.
    as_probe : expression
        Looks into the values of one document: right where other conditions have left few.
    selective : bool
        Whether few documents are likely to satisfy it, as an equality.
    """

    as_set: _Expression
    as_probe: _Expression
    selective: bool


class _SQL:
    """Builds SQL; fields and values become parameters, never text."""

    def all_of(self, parts: list[_Term]) -> _Term:
        probes = [part.as_probe for part in parts]
        lead = next((i for i, part in enumerate(parts) if part.selective), None)
        if lead is None:
            return _Term(
                _joined(" AND ", [part.as_set for part in parts], "1"), _joined(" AND ", probes, "1"), False
            )
        rest = [*probes[:lead], *probes[lead + 1 :]]
        as_set = _joined(" AND ", [parts[lead].as_set, *rest], "1")
        return _Term(as_set, _joined(" AND ", probes, "1"), True)

    def any_of(self, parts: list[_Term]) -> _Term:
        return _Term(
            _joined(" OR ", [part.as_set for part in parts], "0"),
            _joined(" OR ", [part.as_probe for part in parts], "0"),
            all(part.selective for part in parts),
        )

    def negation(self, part: _Term) -> _Term:
        as_set, as_probe = ((f"(NOT {sql})", values) for sql, values in (part.as_set, part.as_probe))
        return _Term(as_set, as_probe, False)

    def exists(self, field: str) -> _Term:
        return self._values(field, "present", "", [], False)

    def order(self, field: str, name: str, value: Any) -> _Term:
        return self._values(field, kind_of(value), f" AND value {COMPARISONS[name][0]} ?", [value], False)

    def any_equal(self, field: str, values: list[Any]) -> _Term:
        parts = []
        for kind in ("text", "number"):
            some = [value for value in values if kind_of(value) == kind]
            if some:
                marks = ", ".join("?" * len(some))
                parts.append(self._values(field, kind, f" AND value IN ({marks})", some, True))
        return self.any_of(parts)

    def _values(
        self, field: str, kind: str | None, comparison: str, values: list[Any], selective: bool
    ) -> _Term:
        found = f"field = ? AND kind = ?{comparison}"
        as_set = f"documents.row IN (SELECT row FROM metadata_values WHERE {found})"
        as_probe = (
            "EXISTS (SELECT 1 FROM metadata_values AS v INDEXED BY values_of_a_row "
            f"WHERE v.row = documents.row AND {found})"
        )
        parameters = [field, kind, *values]
        return _Term((as_set, parameters), (as_probe, parameters), selective)


def _joined(word: str, parts: list[_Expression], nothing: str) -> _Expression:
    if not parts:
        return nothing, []
    return f"({word.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]
