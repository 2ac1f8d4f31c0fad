"""The name by which operators know this process: of its host, and its process id there."""

from __future__ import annotations

import os
import socket

PROCESS_NAME = f"{socket.gethostname()}:{os.getpid()}"
