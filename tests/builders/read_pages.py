"""The command that writes a page, and what such a page holds."""

from html.parser import HTMLParser

from typer.testing import CliRunner

from experiments.__main__ import app

__all__ = ["Elements", "page_command"]


def page_command(*arguments: object) -> tuple[int, str, str]:
    """Return the code of the command "page", and what it printed and complained."""
    result = CliRunner().invoke(app, ["page", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


class Elements(HTMLParser):
    """All elements with their attributes, and all text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data
