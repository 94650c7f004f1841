"""Setups: the kernels and front ends that the matrix crosses, as `make matrix` has laid them out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.lab import Notebook

if TYPE_CHECKING:
    from tests.browser.lab import Lab

OUT = Path(__file__).parents[2] / "out"
PACKAGES = OUT / "matrix"
NEWEST = importlib.metadata.version("ipykernel")
LAB_SETTINGS = "@jupyterlab/apputils-extension/kernels-settings.jupyterlab-settings"
DEFAULT, DISABLED = "perCommTarget", "disabled"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One kernel in one front end.

    Attributes:
        ipykernel: The beginning of its version.
        comms: JupyterLab's setting commsOverSubshells.
        is_notebook: Whether the page is Notebook 7's.
    """

    ipykernel: str
    comms: str = DEFAULT
    is_notebook: bool = False

    def __str__(self) -> str:
        short = ".".join(self.ipykernel.split(".")[:2])
        if self.is_notebook:
            return f"{short}, Notebook 7"
        return f"{short}, comms {'default' if self.comms == DEFAULT else self.comms}"

    def prepare(self, server: Lab) -> str:
        """Lay out the kernel and the setting for the next page, and return the kernel's name."""
        settings = server.folder / "settings" / LAB_SETTINGS
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"commsOverSubshells": self.comms}))
        name = f"ipykernel-{self.ipykernel}"
        folder = PACKAGES / f"ipykernel=={self.ipykernel}"
        # Before the environment's own; only the kernel differs.
        path = {"PYTHONPATH": first(folder)} if self.ipykernel != NEWEST else {}
        spec = {
            "argv": [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": path,
        }
        kernel = server.folder / "data" / "kernels" / name
        kernel.mkdir(parents=True, exist_ok=True)
        (kernel / "kernel.json").write_text(json.dumps(spec))
        return name


SETUPS = [
    *(Setup(ipykernel=version, comms=comms) for version in ("6.31", "7.3", NEWEST) for comms in (DEFAULT, DISABLED)),
    Setup(ipykernel=NEWEST, is_notebook=True),
]
VOILA = f"{'.'.join(NEWEST.split('.')[:2])}, Voila"


class Notebook7(Notebook):
    """A notebook in a page of Notebook 7: no workspaces, one document."""

    def route(self, name: str) -> str:
        """Return the part of the address that shows the notebook alone."""
        return f"notebooks/{self.path.name}"


def first(folder: Path) -> str:
    """Return a PYTHONPATH that begins with the folder."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def notebook_environment() -> dict[str, str]:
    """Return what makes the environment's Python serve Notebook 7, which is not installed in it."""
    folder = next(PACKAGES.glob("notebook==*"))
    shares = folder / "share" / "jupyter"
    # Both applications look for schemas and themes in one folder only.
    for name in ("schemas", "themes"):
        shutil.copytree(Path(sys.prefix) / "share/jupyter/lab" / name, shares / "lab" / name, dirs_exist_ok=True)
    return {
        "PYTHONPATH": first(folder),
        "JUPYTER_PATH": str(shares),
        "JUPYTER_CONFIG_PATH": str(folder / "etc" / "jupyter"),
        "JUPYTERLAB_DIR": str(shares / "lab"),
    }


NOTEBOOK7 = ("notebook", "--JupyterNotebookApp.expose_app_in_browser=True")
