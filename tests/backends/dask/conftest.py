"""Dask: the processes of the workers."""

import os

import pytest


@pytest.fixture
def pids(client):
    """The process of each worker, by its address."""
    return client.run(os.getpid)
