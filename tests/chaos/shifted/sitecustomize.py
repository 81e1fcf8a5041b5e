"""Python runs this before anything else of a process: it makes the process's clock wrong.

`CHAOS_AHEAD` says by how many seconds. Only `time.time` and `time.time_ns` are shifted.
"""

import os
import time

_right, _right_ns = time.time, time.time_ns
_ahead = float(os.environ["CHAOS_AHEAD"])

time.time = lambda: _right() + _ahead
time.time_ns = lambda: _right_ns() + int(_ahead * 1e9)
