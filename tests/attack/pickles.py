"""Pickles that run a program, fill the memory or never end if they are loaded."""

import pickle

#: File that exists in the working directory if a pickle ran a program.
MARKER = "ran-a-program"


def _calling(module: str, name: str, argument: str) -> bytes:
    """Return a pickle that calls a function with one text."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


HOSTILE_PICKLES = (
    _calling("os", "system", f"touch {MARKER}"),
    _calling("posix", "system", f"touch {MARKER}"),
    _calling("builtins", "exec", f"open({MARKER!r}, 'w').close()"),
    _calling("builtins", "eval", f"open({MARKER!r}, 'w')"),
    _calling("subprocess", "getoutput", f"touch {MARKER}"),
    _calling("pathlib", "Path", MARKER),
    # An attribute of an allowed name.
    b"\x80\x04\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93.",
    # A memo index that takes 8 GiB.
    b"\x80\x02K\x01r\x00\x00\x00\x20.",
    # A key that takes 2 ** 40 steps to hash, and deep nesting.
    b"\x80\x02}K\x01" + b"2\x86" * 40 + b"K\x01s.",
    b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
    # Lengths beyond the file's end.
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    b"\x80\x04B\xff\xff\xff\x7fx.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    b"L" + b"9" * 5000 + b"L\n.",
    pickle.dumps({"a": [1, 2.5, None, "x"]}),
    pickle.dumps([(1, 2)]),
    pickle.dumps(None),
    b"",
    b".",
    b"\x80\x7f.",
    b"\x80\x04Q.",
    b"Pid\n.",
    b"\x80\x04\x82\x01.",
    b"0.",
    b"h\x00.",
)
