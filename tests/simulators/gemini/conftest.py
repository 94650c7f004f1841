import json

import httpx2
import pytest

from ipybatch.simulators import serve

FLASH = "gemini-2.5-flash"


def request_of(text, **more):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


class Line:
    """A simulated service on loopback, and calls to it; the clock of the service runs ahead by `advance`."""

    def __init__(self, **options):
        self.server = serve("gemini", **options)
        self.simulator = self.server.simulator
        self.advance = self.server.advance
        self._client = httpx2.Client(base_url=self.server.url, trust_env=False, timeout=10)

    def send(self, method, path, content=None, key="SIMULATED", **headers):
        """Return the whole response."""
        raw = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        return self._client.request(method, path, content=raw, headers={"x-goog-api-key": key, **headers})

    def __call__(self, method, path, content=None, **more):
        """Return status and JSON."""
        response = self.send(method, path, content, **more)
        return response.status_code, response.json()

    def generate(self, text="Hello", model=FLASH, key="SIMULATED", **more):
        return self("POST", f"/v1/models/{model}:generateContent", request_of(text, **more), key=key)

    def upload(self, content=b"abc", key="SIMULATED", size=None):
        """Return the file, or the refusal of its upload."""
        about = {"file": {"display_name": "in", "mime_type": "application/jsonl", "size_bytes": size or len(content)}}
        response = self.send("POST", "/upload/v1/files", about, key=key, **{"X-Goog-Upload-Command": "start"})
        if response.status_code != 200:
            return response.json()
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        return self("POST", response.headers["X-Goog-Upload-URL"], content, **headers)[1]["file"]

    def create(self, *prompts, name="d1", key="SIMULATED", file=None, as_file=False, model=FLASH):
        """Create an inline job, or one from a file; return status and JSON."""
        if as_file:
            rows = [{"key": f"k{n}", "request": request_of(text)} for n, text in enumerate(prompts)]
            file = self.upload(b"".join(json.dumps(row).encode() + b"\n" for row in rows), key)["name"]
        entries = [{"request": request_of(text), "metadata": {"key": f"k{n}"}} for n, text in enumerate(prompts)]
        source = {"fileName": file} if file else {"requests": {"requests": entries}}
        batch = {"batch": {"displayName": name, "inputConfig": source}}
        return self("POST", f"/v1/models/{model}:batchGenerateContent", batch, key=key)

    def ended(self, *prompts, advance_s=10.0, **more):
        """Create a job, let it end, and return its name."""
        name = self.create(*prompts, **more)[1]["name"]
        self.advance(advance_s)
        return name

    def job(self, name, **more):
        return self("GET", f"/v1/{name}", **more)[1]

    def lines(self, job):
        """Return the result file of a job, as it comes."""
        return self.send("GET", f"/v1/{job['metadata']['output']['responsesFile']}:download?alt=media").content

    def ledger(self):
        """Return the rows of the ledger, as any process may read them."""
        return self("GET", "/_sim/ledger")[1]["rows"]

    def close(self):
        self._client.close()
        self.server.close()


@pytest.fixture
def start():
    made = []

    def begin(**options):
        made.append(Line(**options))
        return made[-1]

    yield begin
    for line in made:
        line.close()
