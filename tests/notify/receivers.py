"""What receivers were sent, and what must be seen nowhere."""

import json

import msgspec

SECRET = "a-secret-of-the-webhook-41f7"
TOKEN = "T0kenInThePath93"


class Request(msgspec.Struct):
    """A request that a webhook's receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self):
        return json.loads(self.body)
