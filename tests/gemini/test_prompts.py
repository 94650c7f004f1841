"""Prompts: every form is the same request in every lane; what is no prompt is told by number and field."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pandas as pd
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from ipybatch import BatchSession, InputError
from ipybatch.engine.data.plan import Keying, make_plan
from ipybatch.gemini.prompts import Prompt, to_prompts
from ipybatch.gemini.service.client import connect
from ipybatch.gemini.service.request_config import RequestConfig
from tests.gemini.conftest import client_arguments

# The client's own, with aiohttp.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
GEMINI_SCHEMA = {"type": "OBJECT", "properties": {"name": {"type": "STRING"}}, "required": ["name"]}
JSON_SCHEMA = {"type": "object", "properties": {"first_name": {"type": ["string", "null"], "default": None}}}


@pytest.fixture(scope="module")
def server():
    """A server that keeps the bodies it is sent."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            reply = json.dumps({"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *arguments):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", bodies
    httpd.shutdown()
    thread.join()
    httpd.server_close()


async def ask(url, prompt, request_config):
    client = connect("SIMULATED", url)
    try:
        await client.aio.models.generate_content(model="gemini-2.5-flash", **client_arguments(prompt, request_config))
    finally:
        await client.aio.aclose()
        client.close()


def camel(value):
    """Spell a request's own fields one way; the client writes some of them as Python does."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): each for name, each in value.items()}
    users = ("properties", "responseJsonSchema", "labels")
    return {name: each if name in users else camel(each) for name, each in named.items()}


@pytest.mark.parametrize(
    ("item", "sending"),
    [
        ("Name a star", {}),
        ("Name a star", {"lane": "flex", "system": "Be brief"}),
        ({"prompt": "a", "system": "Be long", "config": {"temperature": 0.7}}, {"system": "b", "config": {"seed": 3}}),
        ({"prompt": "What is it?", "image": PNG}, {"modalities": ("TEXT", "IMAGE")}),
        ({"contents": [{"role": "user", "parts": ["a"]}, {"role": "model", "parts": ["b"]}, "c"]}, {}),
        ({"contents": [{"fileData": {"fileUri": "https://x/files/1", "mimeType": "application/pdf"}}, "read"]}, {}),
        ({"contents": [{"inlineData": {"mimeType": "application/pdf", "data": "+/+/"}}, "read"]}, {}),
        ("a", {"schema": GEMINI_SCHEMA}),
        ("a", {"schema": JSON_SCHEMA}),
        (
            "a",
            {
                "config": {
                    "top_p": 0.5,
                    "top_k": 3,
                    "max_output_tokens": 100,
                    "stop_sequences": ["END"],
                    "thinking_config": {"thinking_budget": 0, "include_thoughts": True},
                    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
                    "tools": [{"google_search": {}}, {"url_context": {}}],
                    "image_config": {"aspect_ratio": "1:1"},
                    "media_resolution": "MEDIA_RESOLUTION_LOW",
                    "cached_content": "abc",
                }
            },
        ),
    ],
    ids=["text", "flex", "own", "image", "turns", "file", "pdf", "gemini schema", "json schema", "config"],
)
def test_a_batch_carries_what_the_client_sends(server, item, sending):
    """The request in a batch is, field by field, what the real client sends online."""
    url, bodies = server
    prompt, settings = to_prompts([item])[0], RequestConfig(**sending)
    asyncio.run(ask(url, prompt, settings))
    sent, batched = camel(bodies[-1]), camel(json.loads(msgspec.json.encode(prompt.wire(settings))))
    assert _plain_base64(sent) == _plain_base64({"generationConfig": {}, **batched})


def _plain_base64(request):
    """The client spells base64 with - and _, which proto JSON takes too."""
    for content in request["contents"]:
        for part in content["parts"]:
            if "inlineData" in part:
                data = part["inlineData"]["data"].replace("-", "+").replace("_", "/")
                part["inlineData"]["data"] = base64.b64decode(data)
    return request


def test_a_text_is_its_own_key():
    assert to_prompts(["a", "b"], operation="food", project="menu") == [
        Prompt(id="a", parts=("a",), operation="food", project="menu"),
        Prompt(id="b", parts=("b",), operation="food", project="menu"),
    ]


def test_a_dict_says_it_field_by_field():
    fields = {
        "id": 7,
        "text": "Hello",
        "image": PNG,
        "system": "Be brief",
        "config": {"temperature": 0.5},
        "operation": "pose",
        "project": "p",
    }
    prompt = to_prompts([fields])[0]
    assert (prompt.id, prompt.text, prompt.system, prompt.operation, prompt.project) == (
        7,
        "Hello",
        "Be brief",
        "pose",
        "p",
    )
    assert [image.mime_type for image in prompt.images] == ["image/png"]
    assert prompt.config == {"temperature": 0.5}


def test_images_come_before_the_text_and_name_the_item():
    """Many images share one question; each is an item of its own."""
    first, second = to_prompts([{"prompt": "What?", "image": PNG}, {"prompt": "What?", "image": PNG + b"x"}])
    assert first.parts[1] == "What?"
    assert first.id.startswith("What?\n[image/png ")
    assert first.id != second.id


def test_a_template_is_filled_row_by_row():
    rows = [{"name": "Vega", "price": 2}, {"name": "Deneb", "price": 3.5, "note": "left alone"}]
    made = to_prompts(rows, template="{name} at {price:.2f} {{sic}}")
    assert [prompt.text for prompt in made] == ["Vega at 2.00 {sic}", "Deneb at 3.50 {sic}"]


def test_a_template_of_one_column_takes_texts():
    assert [prompt.text for prompt in to_prompts(["cat"], template="Draw a {animal}")] == ["Draw a cat"]


def test_a_column_of_the_template_is_no_field():
    """A table's own "project" or "image" is data when the template asks for it."""
    rows = [{"id": 1, "project": "Apollo", "image": "none", "operation": "food"}]
    prompt = to_prompts(rows, template="{project} {image}")[0]
    assert (prompt.id, prompt.text, prompt.project, prompt.operation) == (1, "Apollo none", "", "food")


def test_a_frame_is_known_by_its_index_or_its_id():
    frame = pd.DataFrame({"prompt": ["a", "b"], "other": [1, 2]}, index=[10, 20])
    assert [prompt.id for prompt in to_prompts(frame)] == [10, 20]
    assert [prompt.id for prompt in to_prompts(frame.assign(id=[1.0, 2.0]))] == [1, 2]
    assert [prompt.id for prompt in to_prompts(frame.set_axis([1, 1]))] == ["a", "b"]
    assert [prompt.id for prompt in to_prompts(frame, key="other")] == [1, 2]
    assert [prompt.id for prompt in to_prompts(frame, key=lambda row: f"n{row['other']}")] == ["n1", "n2"]
    assert [prompt.id for prompt in to_prompts(frame.set_axis(pd.to_datetime(["2026-01-01", "2026-01-02"])))] == [
        "2026-01-01 00:00:00",
        "2026-01-02 00:00:00",
    ]


def talk(*before, last="And now?"):
    return {"contents": [*({"role": role, "parts": [text]} for role, text in before), last]}


HELLO, HI = [("user", "Hello"), ("model", "Good day")], [("user", "Hi"), ("model", "Good day")]
PDF = {"fileData": {"fileUri": "https://x/files/1", "mimeType": "application/pdf"}}
OTHER_PDF = {"fileData": {"fileUri": "https://x/files/2", "mimeType": "application/pdf"}}
KEYS = {  # what is given --> the keys; "..." stands for a hash of what is sent beside the text
    "texts": (["a", "b"], ["a", "b"]),
    "text that looks like a key": (["[config]", '"a"'], ["[config]", '"a"']),
    "one turn": ([{"contents": "a"}, {"contents": ["b"]}], ["a", "b"]),
    "talks": ([talk(), talk(*HELLO), talk(*HI)], ["And now?", "And now?\n[turns ...]", "And now?\n[turns ...]"]),
    "talks with ids": ([{"id": 1, **talk(*HELLO)}, {"key": "x", **talk(*HI)}], [1, "x"]),
    "own system": (
        [{"prompt": "a", "system": "Be brief"}, {"prompt": "a", "system": "Be long"}, "a"],
        ["a\n[system ...]", "a\n[system ...]", "a"],
    ),
    "own config": (
        [{"prompt": "a", "config": {"temperature": 0}}, {"prompt": "a", "config": {"temperature": 1}}, "a"],
        ["a\n[config ...]", "a\n[config ...]", "a"],
    ),
    "both": ([{"prompt": "a", "system": "b", "config": {"seed": 1}}], ["a\n[system, config ...]"]),
    "images": (
        [{"prompt": "a", "image": PNG}, {"prompt": "a", "image": PNG + b"x"}],
        ["a\n[image/png ...]", "a\n[image/png ...]"],
    ),
    "files": (
        [{"contents": [PDF, "read"]}, {"contents": [OTHER_PDF, "read"]}, "read"],
        ["read\n[parts ...]", "read\n[parts ...]", "read"],
    ),
    "another order": (
        [{"contents": ["a", PDF, "b"]}, {"contents": ["a", "b", PDF]}, {"contents": ["a", "b"]}, "a\nb"],
        ["a\nb\n[parts ...]", "a\nb\n[parts ...]", "a\nb\n[parts ...]", "a\nb"],
    ),
    "labels": ([{"prompt": "a", "operation": "food", "project": "menu"}], ["a"]),
    "series": (pd.Series(["a", "a"], index=["x", "y"]), ["x", "y"]),
    "series of numbers": (pd.Series(["a", "b", "c"])[[True, False, True]], [0, 2]),
    "series of dates": (pd.Series(["a"], index=pd.to_datetime(["2026-01-01"])), ["2026-01-01 00:00:00"]),
    "series of dicts": (pd.Series([{"prompt": "a"}, {"id": 7, "prompt": "b"}], index=["x", "y"]), ["x", 7]),
    "series that repeats its index": (pd.Series(["a", "b"], index=[1, 1]), ["a", "b"]),
    "frame": (pd.DataFrame({"prompt": ["a", "a"], "system": ["b", "c"]}, index=["x", "y"]), ["x", "y"]),
    "frame that repeats its index": (
        pd.DataFrame({"prompt": ["a", "a", "a"], "system": ["b", "c", None]}, index=[1, 1, 1]),
        ["a\n[system ...]", "a\n[system ...]", "a"],
    ),
    "frame of settings": (
        pd.DataFrame({"prompt": ["a", "a"], "config": [{"temperature": 0}, {"temperature": 1}]}, index=[1, 1]),
        ["a\n[config ...]", "a\n[config ...]"],
    ),
}


@pytest.mark.parametrize("given", KEYS)
def test_a_key_differs_where_what_is_sent_differs(given):
    """And is the same at each reading, in whatever order the items come, so that the same name continues."""
    prompts, keys = KEYS[given]
    made = [prompt.id for prompt in to_prompts(prompts)]
    shown = [re.sub(r"(?<= )[0-9a-f]{12}(?=\]$)", "...", key) if isinstance(key, str) else key for key in made]
    assert shown == keys
    assert len(set(made)) == len(made)
    again = prompts[::-1] if isinstance(prompts, list) else prompts.iloc[::-1]
    assert [prompt.id for prompt in to_prompts(again)] == made[::-1]


def test_the_same_prompt_twice_is_refused_and_may_have_ids(tmp_path):
    """There is nothing by which two answers to the same could be told apart."""
    for twice in (["a", "a"], [talk(*HELLO), talk(*HELLO)], [{"contents": ["a"]}, "a"]):
        with pytest.raises(InputError, match="items 0 and 1 share the key"):
            BatchSession("twice", print, to_prompts(twice), journal=tmp_path / "journal.db")
    made = to_prompts([{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "a"}])
    assert [prompt.id for prompt in made] == [1, 2]


SETTINGS = {
    "model": "make a session for each model, with model=, or drop it",
    "temperature": "put it into the field 'config', such as {'config': {'temperature': ...}}, or drop it",
    "max_output_tokens": "put it into the field 'config', such as {'config': {'max_output_tokens': ...}}",
    "candidate_count": "pass samples= for several answers of each prompt, or drop it",
    "system_instruction": "call it 'system', or drop it",
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("made", "template"),
    [(pd.DataFrame, None), (pd.DataFrame, "{prompt}"), (lambda fields: [fields], None), (lambda f: [f], "{prompt}")],
    ids=["frame", "frame and template", "dict", "dict and template"],
)
def test_a_setting_that_would_be_ignored_is_refused(name, made, template):
    """A column that the template or the key names is data."""
    fields = {"prompt": ["a"], name: [1]} if made is pd.DataFrame else {"prompt": "a", name: 1}
    with pytest.raises(InputError, match=rf"the field '{name}', which is not sent: {re.escape(SETTINGS[name])}"):
        to_prompts(made(fields), template=template)
    assert to_prompts(made(fields), template=f"{{prompt}} {{{name}}}")[0].text == "a 1"


def test_an_empty_cell_of_an_optional_column_is_nothing():
    frame = pd.DataFrame({"prompt": ["a", "b"], "image": [PNG, None], "project": ["p", float("nan")]})
    made = to_prompts(frame, project="rest")
    assert [len(prompt.images) for prompt in made] == [1, 0]
    assert [prompt.project for prompt in made] == ["p", "rest"]


def test_the_clients_own_types_are_taken():
    content = types.Content(
        role="user", parts=[types.Part(text="a"), types.Part.from_bytes(data=PNG, mime_type="image/png")]
    )
    prompt = to_prompts([{"id": 1, "contents": content}])[0]
    assert prompt.parts[0] == "a"
    assert prompt.images[0].read() == PNG


def test_nothing_is_no_prompts():
    assert to_prompts([]) == []
    assert to_prompts(pd.DataFrame({"prompt": []})) == []


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (["a", " "], r"prompts\[1\] must be a text that is not empty, got ' '"),
        ([""], r"prompts\[0\] must be a text that is not empty"),
        ([None], r"prompts\[0\] must be a text or a dict, got None"),
        ([{"prompt": ""}], r"prompts\[0\]\['prompt'\] must be a text that is not empty"),
        ([{"prompt": float("nan")}], r"prompts\[0\]\['prompt'\] must be a text .*, got nan"),
        ([{"promt": "a"}], r"prompts\[0\] has the unknown field 'promt': it may have id, key, prompt"),
        ([{"id": 1}], r"prompts\[0\] must have a 'prompt'"),
        ([{"prompt": "a", "text": "b"}], r"prompts\[0\] must have one of .*, got 'prompt' and 'text'"),
        ([{"prompt": "a", "id": True}], r"prompts\[0\]\['id'\] must be a text or a whole number, got True"),
        ([{"prompt": "a", "id": 1.5}], r"prompts\[0\]\['id'\] .*, got 1.5"),
        ([{"prompt": "a", "system": ""}], r"prompts\[0\]\['system'\] must be a text"),
        ([{"prompt": "a", "config": {"temprature": 1}}], r"prompts\[0\]\['config'\] .* did you mean 'temperature'\?"),
        ([{"prompt": "a", "config": 3}], r"prompts\[0\]\['config'\] must be a dict"),
        ([{"prompt": "a", "project": 3}], r"prompts\[0\]\['project'\] must be a text"),
        ([{"prompt": "a", "images": [PNG, "no file.png"]}], r"prompts\[0\]\['images'\]\[1\] must be an image"),
        ([{"prompt": "a", "image": float("nan")}], r"prompts\[0\]\['image'\] must be bytes"),
        ([{"prompt": "half \ud800"}], r"prompts\[0\] must be valid Unicode"),
        ([{"contents": []}], r"prompts\[0\]\['contents'\] must have at least one part"),
        ([{"contents": [{"role": "system", "parts": ["a"]}]}], r"\['contents'\]\[0\] must have 'parts' and a 'role'"),
        ([{"contents": [{"role": "model", "parts": ["a"]}]}], r"\['contents'\] must end with a turn of 'user'"),
        ([{"contents": [{"txt": "a"}]}], r"\['contents'\]\[0\] must be a part of Gemini's Content"),
        ([{"contents": [7]}], r"\['contents'\]\[0\] must be a text, an Image or a part"),
        ([{"contents": [{"inlineData": {"mimeType": "a/b", "data": "#"}}]}], r"must have base64 or bytes"),
        ("a", r"prompts must be a list of prompts or a frame, got 'a'"),
        ({"prompt": "a"}, r"prompts must be a list"),
        (7, r"prompts must be a list"),
        (pd.DataFrame({"prompt": ["a", None]}), r"prompts\[1\]\['prompt'\] must be a text"),
        (pd.DataFrame({"other": ["a"]}), r"prompts\[0\] must have a 'prompt', .*template="),
        (pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), r"columns differ"),
    ],
)
def test_what_is_no_prompt_is_refused(prompts, says):
    """Promise 13: number, field, value and what to do, before anything is sent."""
    with pytest.raises(InputError, match=says):
        to_prompts(prompts)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("About {nme}", r"prompts\[0\] has no 'nme', which the template needs: it has 'name', 'gap'"),
        ("About {gap}", r"prompts\[0\]\['gap'\] must be a value for the template, got nan"),
        ("About {name:.2f}", r"prompts\[0\] does not fit the template"),
        ("About {name.__class__}", r"names of columns in its braces, got \{name.__class__\}"),
        ("About {name[0]}", r"names of columns in its braces"),
        ("About {}", r"names of columns in its braces"),
        ("About {0}", r"names of columns in its braces"),
        ("About {name", r"braces that do not match"),
        ("About nothing", r"must name a column in braces"),
        ("", r"template must be a text"),
        (7, r"template must be a text"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(template, says):
    with pytest.raises(InputError, match=says):
        to_prompts([{"name": "Vega", "gap": float("nan")}], template=template)


def test_a_key_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"prompts\[0\] has no 'sku', which key= names"):
        to_prompts([{"prompt": "a"}], key="sku")


def test_keys_that_repeat_are_refused_by_the_session(tmp_path):
    with pytest.raises(ValueError, match="share the key"):
        BatchSession("twice", print, to_prompts(["a", "a"]), journal=tmp_path / "journal.db")


def test_a_change_of_what_is_sent_runs_the_item_again(tmp_path):
    """The digest covers text, system, config and the images' content; not their names."""
    before, after = tmp_path / "a.png", tmp_path / "b.png"
    before.write_bytes(PNG)
    after.write_bytes(PNG)
    changed = tmp_path / "c.png"
    changed.write_bytes(PNG + b"x")

    def digest(**fields):
        return make_plan(to_prompts([{"id": 1, "prompt": "a", **fields}]), Keying())[0].digest

    same = digest(image=before)
    assert same == digest(image=str(after))
    others = [{}, {"image": changed}, {"image": before, "system": "s"}, {"image": before, "config": {"seed": 1}}]
    assert len({same, *(digest(**fields) for fields in others)}) == 5


def test_a_digest_holds_no_image():
    prompt = to_prompts([{"prompt": "a", "image": PNG + bytes(1_000_000)}])[0]
    assert len(msgspec.json.encode(prompt)) < 1_000


@given(st.text(min_size=1).filter(str.strip))
def test_every_text_comes_through(text):
    prompt = to_prompts([text])[0]
    assert prompt.id == text
    assert prompt.wire(RequestConfig())["contents"] == [{"role": "user", "parts": [{"text": text}]}]


@pytest.mark.parametrize(
    ("sending", "says"),
    [
        ({"lane": "fast"}, "lane must be one of 'online', 'flex', 'batch', got 'fast'"),
        ({"system": " "}, "system must be a text"),
        ({"modalities": ("SOUND",)}, "modalities must be some of 'TEXT' and 'IMAGE'"),
        ({"config": {"response_modalities": ["AUDIO"]}}, "modalities must be some of"),
        ({"config": {"temperature": 3}}, r"config\['temperature'\] must be >= 0 and <= 2, got 3"),
        ({"config": {"temperature": "hot"}}, r"config\['temperature'\] is invalid, got 'hot'"),
        ({"config": {"max_output_tokens": 0}}, r"config\['max_output_tokens'\] must be a whole number >= 1, got 0"),
        (
            {"config": {"candidate_count": 2}},
            r"config\['candidate_count'\] must be 1, got 2: pass samples=",
        ),
        ({"config": {"thinking_config": {"x": 1}}}, r"config\['thinking_config'\] must not hold 'x'"),
        ({"config": {"response_schema": {}}}, "config must not hold 'response_schema', got {}: pass schema="),
        ({"config": {"tools": [print]}}, r"functions are not called here"),
        ({"config": {"service_tier": "flex"}}, 'pass lane="flex"'),
        ({"config": [1]}, "config must be a dict"),
        ({"schema": 7}, "schema must be a pydantic class or a dict, got 7"),
    ],
)
def test_what_cannot_be_sent_is_refused(sending, says):
    with pytest.raises(InputError, match=says):
        RequestConfig(**sending)


def test_the_lane_runs_nothing_again():
    """What was answered in one lane is answered; a change of what is said is a change."""
    online = RequestConfig(system="a", config={"temperature": 1}, schema=GEMINI_SCHEMA)
    assert msgspec.structs.replace(online, lane="batch").settings() == online.settings()
    assert msgspec.structs.replace(online, schema=None).settings() != online.settings()
    assert msgspec.structs.replace(online, modalities=("IMAGE",)).settings() != online.settings()
    assert msgspec.json.encode(online.settings())


def test_an_image_is_asked_for_by_all_or_by_one():
    assert RequestConfig(modalities=("IMAGE",)).wants_image({})
    assert not RequestConfig().wants_image({})
    prompt = to_prompts([{"prompt": "a", "config": {"response_modalities": ["IMAGE"]}}])[0]
    assert RequestConfig().wants_image(prompt.config)
