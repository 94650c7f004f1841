"""Kernel: which kernel of Jupyter this process is, and whose notebook it serves.

Nothing is loaded for it: what a kernel has not loaded, it is not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def this_kernel() -> tuple[str, str]:
    """Return the id of this kernel and the path of its notebook, each "" where it is not known.

    Source: JPY_SESSION_NAME is set by jupyter_server for the kernels that it starts; a kernel's id is in the name of
    its connection file, kernel-ID.json; read on 2026-11-30.
    """
    application = sys.modules.get("ipykernel.kernelapp")
    if application is None or not application.IPKernelApp.initialized():
        return "", ""
    file = Path(application.IPKernelApp.instance().connection_file).stem
    return file.removeprefix("kernel-"), os.environ.get("JPY_SESSION_NAME", "")
