"""Dask: attempts on the workers of a cluster.

Read in this order:

protocol  the messages between a driver and a worker
backend   `Dask`: what a session calls
call      an attempt, as the engine knows it
cluster   which attempt runs on which worker
link      the driver's side of the line to one worker
worker    the worker's side: it runs attempts
"""

from __future__ import annotations

from ipybatch.backends.dask.backend import Dask

__all__ = ["Dask"]
