"""Dask: what a process of its own promises, kept on the workers of a cluster."""

import asyncio

import pytest

from ipybatch.backends import Dask
from ipybatch.testing import check_backend

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.usefixtures("patience")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


def test_it_does_what_the_engine_relies_on(client):
    asyncio.run(check_backend(Dask(client), plain=True))
