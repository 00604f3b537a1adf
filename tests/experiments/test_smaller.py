"""The short table of smaller vectors."""

from typing import Any

from experiments import smaller


def run(values: dict[str, float]) -> dict[str, Any]:
    return {"all": values}


def test_rows_and_collections_that_both_commands_measured() -> None:
    sizes = {"2048": 0.9, "1024": 0.88, "512": 0.8, "256": 0.7}
    found: dict[str, dict[str, Any]] = {
        "quality": {"a": {"rows": [{"name": "paper", "recall": {"50": [0.5, 0.7]}}]}},
        "compact": {
            "collections": {
                "a": {"runs": [run({"long": 0.9, "512": 0.8, "256": 0.6})]},
                "plaid-b": {"runs": [run({"long": 0.95, "512": 0.9, "256": 0.85})]},
                "only-here": {"runs": []},
            }
        },
        "learned": {
            "collections": {"a": {"runs": [run(sizes), run(sizes)]}, "plaid-b": {"runs": [run(sizes)]}}
        },
    }
    lines = smaller.markdown(found).splitlines()
    assert lines[2] == "| vectors | floats | a | b |"
    assert "| FDE, the paper's recipe | 10,240 | .600 |  |" in lines
    assert "| compact | 512 | .800 | .900 |" in lines
    assert "| learned | 2,048 | .900 | .900 |" in lines
    assert "only-here" not in smaller.table(found)
