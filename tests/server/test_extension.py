"""What the operator configures holds, whatever else of it cannot be; and a server that ends while it starts."""

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from traitlets.config import Config
from traitlets.config.loader import DeferredConfigString

from ipybatch.server.extension import IpyBatch


def configured(**options):
    extension = IpyBatch(log=logging.getLogger("configured"))
    extension.update_config(Config({"IpyBatch": options}))
    return extension


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_running", 0),
        ("max_running", DeferredConfigString("two")),
        ("max_requests", DeferredConfigString("-3")),
        ("max_upload_mb", 1.5),
        ("keep_alive_h", -1.0),
        ("keep_alive_h", math.nan),
        ("keep_alive_h", DeferredConfigString("inf")),
        ("keep_alive", DeferredConfigString("maybe")),
    ],
)
def test_a_value_that_cannot_be_is_told_and_takes_no_other_with_it(option, value, caplog):
    """Submissions would be paid by another account than the operator named."""
    default = IpyBatch.class_traits()[option].default_value
    extension = configured(**{option: value, "account": "team", "max_streams": DeferredConfigString("3")})
    assert (extension.account, extension.max_streams, getattr(extension, option)) == ("team", 3, default)
    (told,) = caplog.messages
    assert told.startswith(f"c.IpyBatch.{option} is left at {default!r}: ")


def test_values_that_can_be_are_taken_without_a_word(caplog):
    extension = configured(max_running=3, keep_alive_h=DeferredConfigString("0.5"), kernel_name="python3")
    assert (extension.max_running, extension.keep_alive_h, extension.kernel_name) == (3, 0.5, "python3")
    assert not caplog.messages


def test_nothing_begins_beside_a_server_that_has_ended():
    """A signal may come before Jupyter has started what it loads."""
    extension = IpyBatch()
    extension.services, extension._running = (
        SimpleNamespace(pool=ThreadPoolExecutor(1), checks=ThreadPoolExecutor(1)),
        [],
    )
    extension._beside = lambda: [asyncio.sleep(0)]

    async def ended_first():
        await extension.stop_extension()
        await extension._start_jupyter_server_extension(None)
        return extension._running

    assert asyncio.run(ended_first()) == []
