"""Start a server in this process, query it over HTTP and stop it.

It needs the extra "serve".
"""

import json
import threading
import time
import urllib.request

import uvicorn

from muvera import TextIndex
from muvera.serve.app import make_app

index = TextIndex.build(["Sort the list in place.", "Return a copy of the string."], "static")
server = uvicorn.Server(uvicorn.Config(make_app(index), port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started:
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]

body = json.dumps({"query": "put a list in order", "k": 1}).encode()
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/search", body, {"Content-Type": "application/json"}
)
with urllib.request.urlopen(request) as response:
    print(json.load(response)["results"][0][0]["text"])

server.should_exit = True
thread.join()
