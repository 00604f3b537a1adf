"""Texts of the demo sample: docstrings of the Python standard library, and questions of a newcomer.

The lists below and the Python version determine which objects are documents.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

# Modules whose public functions and classes are documents, if their docstrings are long enough.
MODULES = """
    bisect builtins collections copy fnmatch functools getpass glob gzip heapq html itertools json math
    os.path pprint random re secrets shlex shutil statistics string subprocess textwrap timeit tomllib
    urllib.parse
"""
# Classes whose public methods are documents too.
CLASSES = """
    builtins.dict builtins.list builtins.set builtins.str collections.Counter datetime.date
    datetime.datetime pathlib.Path
"""
# Single names of modules that are too large or too special.
NAMES = """
    abc.abstractmethod argparse.ArgumentParser argparse.Namespace asyncio.run asyncio.sleep
    base64.b64decode base64.b64encode base64.urlsafe_b64encode calendar.HTMLCalendar calendar.TextCalendar
    calendar.isleap calendar.leapdays calendar.monthrange calendar.timegm calendar.weekday
    contextlib.ExitStack contextlib.closing contextlib.redirect_stdout contextlib.suppress csv.Sniffer
    dataclasses.asdict dataclasses.astuple dataclasses.dataclass dataclasses.field
    dataclasses.is_dataclass dataclasses.replace datetime.datetime datetime.timedelta datetime.timezone
    decimal.Decimal difflib.HtmlDiff difflib.SequenceMatcher difflib.get_close_matches difflib.ndiff
    difflib.unified_diff enum.Enum filecmp.cmp fractions.Fraction hashlib.file_digest inspect.getsource
    inspect.signature io.BytesIO io.StringIO logging.FileHandler logging.Formatter
    logging.Logger logging.StreamHandler logging.basicConfig logging.debug logging.disable logging.error
    logging.exception logging.getLogger logging.info logging.warning mimetypes.guess_extension
    mimetypes.guess_type multiprocessing.cpu_count operator.attrgetter operator.itemgetter os.chdir
    os.chmod os.cpu_count os.get_terminal_size os.getcwd os.getenv os.getlogin os.getpid os.listdir
    os.makedirs os.remove os.removedirs os.rename os.replace os.scandir os.stat os.symlink os.system
    os.unlink os.urandom pathlib.Path pickle.dump pickle.dumps pickle.load pickle.loads platform.node
    platform.platform platform.python_version platform.system queue.LifoQueue queue.PriorityQueue
    queue.Queue shelve.open smtplib.SMTP smtplib.SMTP_SSL sys.exc_info sys.exit sys.getrecursionlimit
    sys.getrefcount sys.getsizeof sys.setrecursionlimit tarfile.TarFile tarfile.is_tarfile tarfile.open
    tempfile.NamedTemporaryFile tempfile.TemporaryDirectory tempfile.TemporaryFile tempfile.mkdtemp
    threading.Barrier threading.Condition threading.Lock threading.Semaphore threading.Thread
    threading.Timer threading.active_count threading.current_thread threading.enumerate time.ctime
    time.gmtime time.localtime time.mktime time.monotonic time.sleep time.strftime time.strptime time.time
    traceback.format_exc traceback.print_exc unicodedata.lookup unicodedata.name unicodedata.normalize
    unittest.TestCase unittest.skipIf urllib.request.urlopen urllib.request.urlretrieve uuid.UUID
    uuid.uuid1 uuid.uuid3 uuid.uuid5 warnings.catch_warnings warnings.filterwarnings warnings.warn
    weakref.finalize webbrowser.open webbrowser.open_new_tab xml.etree.ElementTree.ElementTree
    xml.etree.ElementTree.fromstring xml.etree.ElementTree.indent xml.etree.ElementTree.parse
    xml.etree.ElementTree.tostring zipfile.ZipFile zipfile.is_zipfile zlib.compress zlib.crc32
    zlib.decompress
"""

# Short documents keep the sample at a few megabytes.
MAX_CHARACTERS = 130
MIN_WORDS = 5

_SIGNATURE = re.compile(r"^[\w.]+\(.*\)(?: *-+> *(.*))?$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")


class Query(NamedTuple):
    """A question and the documents that answer it."""

    text: str
    relevant: tuple[str, ...]


# Answers were written with the questions, and completed once after looking at MaxSim's first results: a module or
# sibling that also answers the question counts. Questions that the model gets wrong stay.
QUERIES = (
    Query("how do I turn a dictionary into a string of JSON?", ("json.dumps",)),
    Query("pick a random element from a list", ("random.choice",)),
    Query("how do I round a number up to the next whole number?", ("math.ceil",)),
    Query("split a string into a list of words", ("str.split",)),
    Query("delete a folder and everything inside it", ("shutil.rmtree",)),
    Query(
        "find all files whose name matches a pattern like *.txt",
        ("glob.glob", "pathlib.Path.glob", "pathlib.Path.rglob"),
    ),
    Query("how can I make my program wait for a few seconds?", ("time.sleep",)),
    Query("count how often each item occurs in a list", ("collections.Counter",)),
    Query("what is the average of a list of numbers?", ("statistics.mean", "statistics.fmean")),
    Query("remove spaces from the beginning and the end of a string", ("str.strip",)),
    Query(
        "how do I run another program and get its output?",
        (
            "subprocess.check_output",
            "subprocess.getoutput",
            "subprocess.getstatusoutput",
            "subprocess.run",
        ),
    ),
    Query("loop over two lists at the same time", ("zip",)),
    Query("remember the results of a function so they are not computed twice", ("functools.cache",)),
    Query("copy a list of lists so that changing one does not change the other", ("copy.deepcopy",)),
    Query("which folder am I working in right now?", ("os.getcwd", "pathlib.Path.cwd")),
    Query("download a web page", ("urllib.request.urlopen", "urllib.request.urlretrieve")),
    Query("ask the user to type something", ("input",)),
    Query("how do I find the biggest number in a list?", ("max",)),
    Query("check whether a file exists", ("os.path.exists", "os.path.isfile")),
    Query("write a date as text in a format of my choice", ("datetime.date.strftime", "time.strftime")),
    Query("measure how long a small piece of code takes to run", ("timeit", "timeit.Timer", "timeit.timeit")),
    Query("hide the password while the user is typing it", ("getpass.getpass",)),
    Query("how do I join path components into one file name?", ("os.path.join", "pathlib.Path.joinpath")),
    Query("print a nested data structure so that it is easy to read", ("pprint", "pprint.pprint")),
)


def collect_documents() -> dict[str, str]:
    """Return text by id, sorted: a dotted name without ``builtins.``, and first sentences of its docstring."""
    documents: dict[str, str] = {}
    # Kept alive: a bound method is a new object at each access, and a dead object's id is used again.
    seen: dict[int, object] = {}
    for name, value in _objects():
        text = _summary(value)
        # An object with several names is one document, under the first name.
        if text is not None and id(value) not in seen:
            seen[id(value)] = value
            documents[name.removeprefix("builtins.")] = f"{name.removeprefix('builtins.')}: {text}"
    return dict(sorted(documents.items()))


def _objects() -> Iterator[tuple[str, object]]:
    for module_name in MODULES.split():
        module = importlib.import_module(module_name)
        if module_name != "builtins":
            yield module_name, module
        public = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        for name in sorted(public):
            value = getattr(module, name)
            if (inspect.isroutine(value) or inspect.isclass(value)) and _belongs(value, module_name):
                yield f"{module_name}.{name}", value
    for class_name in CLASSES.split():
        cls = _named(class_name)
        for name in sorted(name for name in dir(cls) if not name.startswith("_")):
            if inspect.isroutine(getattr(cls, name)):
                yield f"{class_name}.{name}", getattr(cls, name)
    for name in NAMES.split():
        yield name, _named(name)


def _named(dotted: str) -> object:
    module_name, _, name = dotted.rpartition(".")
    value: object = getattr(importlib.import_module(module_name), name)
    return value


def _belongs(value: object, module_name: str) -> bool:
    """Return whether an object is a module's own, and not an exception."""
    if isinstance(value, type) and issubclass(value, BaseException):
        return False
    home = str(getattr(value, "__module__", None) or module_name).lstrip("_")
    # C accelerators (_bisect), the two homes of os.path and submodules belong to the module.
    return home.split(".")[0] in {module_name.split(".")[0], "posixpath", "genericpath"}


def _summary(value: object) -> str | None:
    """Return the first sentences of a docstring, or None if it is too short."""
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str):
        return None
    lines = inspect.cleandoc(doc).split("\n")
    while lines and (signature := _SIGNATURE.match(lines[0].strip() or "f()")):
        lines.pop(0)
        # Behind the arrow is a type ("-> list of strings"), or the whole description.
        if len((signature[1] or "").split()) >= MIN_WORDS:
            lines.insert(0, signature[1])
    # The text ends before an example or a table.
    prose = re.split(r"\n *(?:>>>|---|===)", "\n".join(lines))[0]
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n")]
    sentences = [one for paragraph in paragraphs for one in _SENTENCE_END.split(paragraph) if one]
    if not sentences:
        return None
    text = sentences[0]
    for sentence in sentences[1:]:
        if sentence.endswith(":") or len(text) + 1 + len(sentence) > MAX_CHARACTERS:
            break
        text = f"{text} {sentence}"
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    return text if len(text.split()) >= MIN_WORDS else None
