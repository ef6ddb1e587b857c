"""A keeper of a few lines: says that it is ready, notes its starts, and ends as its package says."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

config = json.loads(Path(sys.argv[1]).read_bytes())
mode = config["packageDir"]
data = Path(config["dataDir"])
data.mkdir(parents=True, exist_ok=True)
with open(data / "starts", "a") as starts:
    starts.write(f"{os.getpid()} {os.getppid()}\n")
if mode == "lost":
    refusal = {"code": "STORE_LOST", "sentence": "There is no store."}
    print(json.dumps({"ready": False, "refusal": refusal}), flush=True)
    sys.exit(5)
if mode == "lost-later" and len((data / "starts").read_text().splitlines()) > 1:
    refusal = {"code": "STORE_LOST", "sentence": f"Known: {config['knownStores'][-1]['changes']}."}
    print(json.dumps({"ready": False, "refusal": refusal}), flush=True)
    sys.exit(5)
if mode == "broken":
    sys.exit("the package cannot be read")
if mode == "mute":
    print("not yet", flush=True)
    sys.exit(3)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind((config["host"], config["port"]))
listening.listen()
store = {"storeId": "store-1", "incarnation": len((data / "starts").read_text().splitlines()), "changes": 0}
ready = {"ready": True, "port": listening.getsockname()[1], "pid": os.getpid(), "store": store}
print(json.dumps(ready), flush=True)
with contextlib.suppress(BrokenPipeError):
    os.write(1, b"x" * 200_000)  # more than a pipe holds
    print("\nno JSON\n" + json.dumps({"store": store | {"changes": 7}}), flush=True)
if mode == "deaf":
    while True:
        time.sleep(60)
if mode == "ends-on-term":
    signal.signal(signal.SIGTERM, lambda *_: os.dup2(os.open(os.devnull, os.O_RDONLY), 0))
while os.read(0, 4096):
    pass
with contextlib.suppress(BrokenPipeError):
    print(json.dumps({"store": store | {"changes": 9}}), flush=True)
(data / "ended-cleanly").touch()
