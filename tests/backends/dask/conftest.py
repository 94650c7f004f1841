"""Dask: one cluster for each module of tests, and the processes of its workers."""

import os

import distributed
import pytest


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        yield client


@pytest.fixture
def pids(client):
    """The process of each worker, by its address."""
    return client.run(os.getpid)
