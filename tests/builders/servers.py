"""A real server in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from muvera import MuveraIndex, PageIndex, RecallMeter, TextIndex
from muvera.serve import ServerSettings, listen, protocol
from muvera.serve.app import make_app


@contextmanager
def running(
    index: TextIndex | MuveraIndex | PageIndex,
    settings: ServerSettings | None = None,
    *,
    name: str | None = None,
    meter: RecallMeter | None = None,
) -> Iterator[int]:
    settings = settings or ServerSettings()
    with listen("127.0.0.1", 0) as listening:
        app = make_app(index, settings, name=name, meter=meter)
        config = uvicorn.Config(app, log_level="critical", http=protocol(settings))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)
