"""A large collection of real texts: the documentation of cloud APIs.

Three Apache-2.0 packages have it: botocore (operations, structures and members of AWS),
google-api-python-client (methods, schemas and properties of Google), and awscli, whose
examples have titles that people wrote.  A title, such as "To create a bucket", is a
query, and the operation that the example shows is its relevant text.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import atomic_folder

#: The packages; other versions have other texts.
PACKAGES = {"botocore": "1.44.8", "awscli": "1.46.3", "google_api_python_client": "2.202.0"}

# Number of test queries; the others are dev queries.
_TEST = 300

# Minimum number of characters of a text.
_SHORTEST = 25

# Commands of awscli with another name than their service.
_SERVICES = {"s3api": "s3", "configservice": "config", "deploy": "codedeploy"}

# Keys of Google's documents that describe no part of an API.
_IGNORED = ("auth", "icons", "kind")

# Keys that are left out of ids.
_PLAIN = ("properties", "schemas", "resources", "methods", "parameters")

_TAG, _SPACE = re.compile(r"<[^>]+>"), re.compile(r"\s+")


def download_wheels(folder: Path) -> None:
    """Download the wheels of PACKAGES into a folder with pip, unless they are there.

    Raises
    ------
    RuntimeError
        If pip fails; its error is on the screen.
    """
    wanted = [f"{name}=={version}" for name, version in PACKAGES.items() if not _wheels(folder, name)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-d"]
    if wanted and subprocess.run([*command, str(folder), *wanted], check=False).returncode:
        raise RuntimeError(f"pip could not download {', '.join(wanted)}. Put the wheels into {folder}.")


def _wheels(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-{PACKAGES[name]}-*.whl"))


def write_apidocs(wheels: Path, out: Path, most: int | None = None) -> int:
    """Write the collection in BEIR's layout, and return its number of texts.

    The texts that are relevant for test queries come first, the others in a random
    order: so the first n texts are a sample.  The order follows from the ids, so it is
    the same each time.

    Parameters
    ----------
    wheels : Path
        Folder with the wheels of PACKAGES.
    out : Path
        New folder.
    most : int, optional
        Maximum number of texts.  Default: all.
    """
    archives = {name: zipfile.ZipFile(_wheels(wheels, name)[0]) for name in PACKAGES}
    texts = _Texts()
    operations = _read_aws(archives["botocore"], texts)
    _read_google(archives["google_api_python_client"], texts)
    queries = sorted(_examples(archives["awscli"], operations).items(), key=lambda pair: _order(pair[0]))
    relevant = dict.fromkeys(name for _, name in queries[:_TEST])
    rest = sorted(texts.titled.keys() - relevant.keys(), key=_order)
    kept = [*relevant, *rest][:most]
    known = set(kept)
    with atomic_folder(out) as folder:
        (folder / "qrels").mkdir()
        _write_lines(
            folder / "corpus.jsonl",
            (
                {"_id": name, "title": title, "text": text}
                for name, (title, text) in ((name, texts.titled[name]) for name in kept)
            ),
        )
        _write_lines(
            folder / "queries.jsonl",
            ({"_id": f"q{i}", "text": text} for i, (text, name) in enumerate(queries) if name in known),
        )
        for split, numbers in (("test", range(_TEST)), ("dev", range(_TEST, len(queries)))):
            lines = [f"q{i}\t{queries[i][1]}\t1" for i in numbers if i < len(queries)]
            lines = [line for line in lines if line.split("\t")[1] in known]
            content = "\n".join(["query-id\tcorpus-id\tscore", *lines, ""])
            (folder / "qrels" / f"{split}.tsv").write_text(content, encoding="utf-8")
    return len(kept)


def _order(text: str) -> bytes:
    """Return a key that sorts texts randomly, but always in the same way."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _write_lines(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class _Texts:
    """Different texts with their titles, by id."""

    def __init__(self) -> None:
        self.titled: dict[str, tuple[str, str]] = {}
        self._ids: dict[str, str] = {}
        self._used: dict[str, int] = {}

    def add(self, name: str, title: str, text: str) -> str | None:
        """Add a text, and return its id: another one if the text was there before.

        Return None for a text that is too short.
        """
        plain = _SPACE.sub(" ", html.unescape(_TAG.sub(" ", text))).strip()
        if len(plain) < _SHORTEST:
            return None
        if plain not in self._ids:
            number = self._used[name] = self._used.get(name, 0) + 1
            self._ids[plain] = name if number == 1 else f"{name}~{number}"
            self.titled[self._ids[plain]] = (title, plain)
        return self._ids[plain]


def _words(name: str) -> str:
    """Return a name in camel case as words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)


def _read_aws(archive: zipfile.ZipFile, texts: _Texts) -> dict[tuple[str, str], str]:
    """Add the texts of botocore; return the text of each service's operations."""
    latest: dict[str, str] = {}
    for path in sorted(archive.namelist()):
        if found := re.fullmatch(r"botocore/data/([^/]+)/[^/]+/service-2\.json\.gz", path):
            latest[found[1]] = path  # the paths end with dates
    operations: dict[tuple[str, str], str] = {}
    for service, path in sorted(latest.items()):
        api = json.loads(gzip.decompress(archive.read(path)))
        for name, operation in api["operations"].items():
            title = f"{service} {_words(name)}"
            added = texts.add(f"aws/{service}/{name}", title, operation.get("documentation", ""))
            if added is not None:
                operations[service, name.lower()] = added
        for name, shape in api["shapes"].items():
            title = f"{service} {_words(name)}"
            texts.add(f"aws/{service}/#{name}", title, shape.get("documentation", ""))
            for member, value in shape.get("members", {}).items():
                documentation = value.get("documentation", "")
                texts.add(f"aws/{service}/#{name}.{member}", f"{title} {_words(member)}", documentation)
    return operations


def _read_google(archive: zipfile.ZipFile, texts: _Texts) -> None:
    pattern = r"googleapiclient/discovery_cache/documents/(.+\.v[^/]*)\.json"
    paths = [found for path in archive.namelist() if (found := re.fullmatch(pattern, path))]
    # All versions of an API follow each other.
    for path in sorted(paths, key=lambda found: (found[1].partition(".v")[0], found[0])):
        for name, title, text in _descriptions(json.loads(archive.read(path[0])), path[1], ""):
            texts.add(f"google/{path[1]}/{name}", title, text)


def _descriptions(part: Any, api: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, title and text of each description in a document."""
    if not isinstance(part, dict):
        return
    last = path.split("/")[-1]
    if isinstance(part.get("description"), str):
        yield path, f"{api} {_words(last)}", part["description"]
    for key, value in part.items():
        if key in _IGNORED:
            continue
        if key == "enumDescriptions" and isinstance(part.get("enum"), list):
            for choice, text in zip(part["enum"], value, strict=False):
                yield f"{path}={choice}", f"{api} {last} {choice}", text
        else:
            yield from _descriptions(value, api, path if key in _PLAIN else f"{path}/{key}")


def _examples(archive: zipfile.ZipFile, operations: dict[tuple[str, str], str]) -> dict[str, str]:
    """Return the text of the operation for each different title of an example."""
    titles: dict[str, str] = {}
    for path in sorted(archive.namelist()):
        found = re.fullmatch(r"awscli/examples/([^/]+)/([^/]+)\.rst", path)
        if found is None:
            continue
        service = _SERVICES.get(found[1], found[1])
        name = operations.get((service, found[2].replace("-", "")))
        if name is not None:
            content = archive.read(path).decode()
            for title in re.findall(r"\*\*(?:Example \d+: )?(To [^*\n]{8,200})\*\*", content):
                titles.setdefault(_SPACE.sub(" ", title).strip(), name)
    return titles
