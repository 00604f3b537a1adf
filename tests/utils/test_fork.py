"""A process that forks while other threads use an index: its children can use it, too."""

import os
import signal
import sys
import threading

import pytest
from builders.text_encoders import HashEncoder

from muvera import TextIndex

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_a_fork_beside_working_threads_does_not_hang() -> None:
    index = TextIndex.build(
        [f"word{i} text" for i in range(300)], HashEncoder(), exact_tokens=0, backend="scan"
    )
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search("word7", k=3, where={"n": {"$exists": False}}, threads=1)

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            index.update(["new words"], ids=[1000 + number % 5], threads=1)

    threads = [threading.Thread(target=target) for target in (search, search, change)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    signal.alarm(60)  # ends a child that hangs
                    found = index.search("word7", k=1, threads=1)[0].id == 7
                    index.add(["a child's own"], ids=[5000], threads=1)
                    code = 0 if found and 5000 in index else 2
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert 5000 not in index
