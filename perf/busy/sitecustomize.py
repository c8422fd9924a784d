"""Keeps one thread of a Python program busy from its start: what an API request or a prefetch's
bookkeeping does to the others. Put in a daemon's PYTHONPATH by `perf.run --busy`.
"""

import json
import threading


def spin() -> None:
    rows = {str(i): list(range(20)) for i in range(50)}
    while True:
        json.loads(json.dumps(rows))


threading.Thread(target=spin, daemon=True, name="busy").start()
