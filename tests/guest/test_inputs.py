"""What hooks get (guest-abi.md, "What the hooks get", "Body hooks", "Header lists")."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm.errors import EventError
from sentinel_wasm.guest import inputs
from sentinel_wasm.guest.inputs import InputWriter
from sentinel_wasm.settings import HeaderNames, HeaderValues

from .steady import STEADY

pytestmark = pytest.mark.parallel

FORMS: list[HeaderNames] = ["canonical", "lower", "as-is"]

# Names of many cases but few letters: hypothesis hits upon those that differ only in case.
TOKENS = st.text("aAbB-", min_size=1, max_size=4) | st.text(
    "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz", min_size=1, max_size=12
)
VALUES = st.lists(st.text(max_size=5), min_size=1, max_size=3)


def canonical(name: str) -> str:
    """Go's textproto.CanonicalMIMEHeaderKey for a token, in another way: part by part between dashes."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def request(
    headers: dict[str, Any],
    names: HeaderNames = "canonical",
    values: HeaderValues = "joined",
    ip: str = "::1",
) -> dict[str, Any]:
    raw = InputWriter(names, values).request_headers("GET", "/a?b=c", ip, "id-1", headers)
    event = json.loads(raw.decode())
    assert isinstance(event, dict)
    return event


def seen(
    headers: dict[str, Any], names: HeaderNames = "canonical", values: HeaderValues = "joined"
) -> dict[str, Any]:
    """The headers that a module gets."""
    found = request(headers, names, values)["headers"]
    assert isinstance(found, dict)
    return found


# Events


def test_request_has_the_published_fields() -> None:
    event = request({"host": ["example.com"]}, ip="192.0.2.1:40000")
    assert event == {
        "method": "GET",
        "uri": "/a?b=c",
        "client_ip": "192.0.2.1",
        "correlation_id": "id-1",
        "headers": {"Host": "example.com"},
    }


def test_response_has_the_published_fields() -> None:
    raw = InputWriter("canonical", "joined").response_headers(404, "id-1", {"server": ["x"]})
    assert json.loads(raw) == {"status": 404, "correlation_id": "id-1", "headers": {"Server": "x"}}


@pytest.mark.parametrize("text", ['"\\', "né 🔑", "\0\r\n\u2028", "</script>"])
def test_text_arrives_unchanged(text: str) -> None:
    raw = InputWriter("canonical", "joined").request_headers(text, text, text, text, {"x": [text]})
    assert json.loads(raw.decode()) == {
        "method": text,
        "uri": text,
        "client_ip": text,
        "correlation_id": text,
        "headers": {"X": text},
    }


# Header names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user-agent", "User-Agent"),
        ("USER-AGENT", "User-Agent"),
        ("uSER-aGENT", "User-Agent"),
        ("authorization", "Authorization"),
        ("content-type", "Content-Type"),
        ("www-authenticate", "Www-Authenticate"),
        ("etag", "Etag"),
        ("te", "Te"),
        ("x", "X"),
        ("x-b3-traceid", "X-B3-Traceid"),
        ("x--y", "X--Y"),
        ("-x-", "-X-"),
        ("x_forwarded_for", "X_forwarded_for"),
        ("sec-ch-ua", "Sec-Ch-Ua"),
        ("1a-2b", "1a-2b"),
        ("a.b-c!d", "A.b-C!d"),
    ],
)
def test_canonical_name(name: str, expected: str) -> None:
    assert list(seen({name: ["1"]})) == [expected]


@pytest.mark.parametrize(("form", "expected"), [("lower", "x-aB-c".lower()), ("as-is", "x-aB-c")])
def test_other_forms_of_a_name(form: HeaderNames, expected: str) -> None:
    assert list(seen({"x-aB-c": ["1"]}, form)) == [expected]


@STEADY
@given(name=TOKENS)
def test_canonical_names_follow_go(name: str) -> None:
    assert list(seen({name: ["1"]})) == [canonical(name)]


@STEADY
@given(name=TOKENS)
def test_lower_names_are_lower(name: str) -> None:
    assert list(seen({name: ["1"]}, "lower")) == [name.lower()]


@STEADY
@given(name=TOKENS)
def test_names_as_they_are_are_untouched(name: str) -> None:
    assert list(seen({name: ["1"]}, "as-is")) == [name]


def test_names_are_right_however_many_came_before() -> None:
    # Clients choose names: what the writer remembers of them is bounded, and forgetting must not show.
    writer = InputWriter("canonical", "joined")
    for number in range(10_000):
        assert writer.fold({f"x-n{number}": ["1"], "user-agent": ["2"]}) == {
            f"X-N{number}": "1",
            "User-Agent": "2",
        }


# Header values


def test_several_values_are_joined_with_a_comma() -> None:
    assert seen({"accept": ["text/html", "text/plain", "*/*"]}) == {"Accept": "text/html, text/plain, */*"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["cookie", "Cookie", "COOKIE"])
def test_cookies_are_joined_with_a_semicolon(form: HeaderNames, name: str) -> None:
    assert list(seen({name: ["a=1", "b=2"]}, form).values()) == ["a=1; b=2"]


@pytest.mark.parametrize("name", ["set-cookie", "cookie2", "x-cookie"])
def test_names_like_cookie_are_joined_with_a_comma(name: str) -> None:
    assert list(seen({name: ["a=1", "b=2"]}).values()) == ["a=1, b=2"]


@pytest.mark.parametrize(("form", "name"), [("canonical", "X-A"), ("lower", "x-a")])
def test_names_that_differ_only_in_case_become_one_in_order_of_arrival(form: HeaderNames, name: str) -> None:
    assert seen({"x-A": ["1", "2"], "X-a": ["3"], "x-a": ["4"]}, form) == {name: "1, 2, 3, 4"}


def test_many_names_that_become_one_take_no_longer_than_others() -> None:
    same = {"".join("aA"[int(bit)] for bit in f"{number:015b}"): ["1"] for number in range(30_000)}
    others = {f"{number:015}": ["1"] for number in range(30_000)}

    def seconds(headers: dict[str, list[str]]) -> float:
        start = time.perf_counter()
        InputWriter("canonical", "joined").fold(headers)
        return time.perf_counter() - start

    assert min(seconds(same) for _ in range(3)) < 8 * min(seconds(others) for _ in range(3))


def test_cookies_that_differ_only_in_case_become_one() -> None:
    assert seen({"cookie": ["a=1"], "Cookie": ["b=2"]}) == {"Cookie": "a=1; b=2"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [":method", ":path", ":authority", ":scheme", ":status", ":", ":x-new"])
def test_pseudo_headers_are_left_out(form: HeaderNames, name: str) -> None:
    assert [key.lower() for key in seen({name: ["x"], "host": ["a"]}, form)] == ["host"]


def test_list_values_are_not_joined() -> None:
    headers = {"accept": ["a", "b"], "host": ["x"], "cookie": ["a=1", "b=2"]}
    assert seen(headers, values="list") == {"Accept": ["a", "b"], "Host": ["x"], "Cookie": ["a=1", "b=2"]}


def test_lists_of_names_that_differ_only_in_case_become_one() -> None:
    assert seen({"x-a": ["1"], "X-A": ["2", "3"]}, values="list") == {"X-A": ["1", "2", "3"]}


@pytest.mark.parametrize("values", ["text", 1, None, True, {}, ["a", 1], [None], [["a"]]])
@pytest.mark.parametrize("name", ["x-a", ":method"])
def test_values_that_are_no_strings_are_the_proxys_mistake(values: Any, name: str) -> None:
    with pytest.raises(EventError, match="header"):
        seen({name: values})


@pytest.mark.parametrize("shape", ["joined", "list"])
def test_events_own_lists_are_left_as_they_were(shape: HeaderValues) -> None:
    headers = {"x-a": ["1"], "X-A": ["2"], "x-A": ["3"]}
    seen(headers, values=shape)
    assert headers == {"x-a": ["1"], "X-A": ["2"], "x-A": ["3"]}


@STEADY
@given(
    headers=st.dictionaries(TOKENS | st.sampled_from([":path", "cookie", "Cookie"]), VALUES, max_size=6),
    form=st.sampled_from(["canonical", "lower"]),
)
def test_every_value_reaches_the_module_in_order(headers: dict[str, list[str]], form: HeaderNames) -> None:
    expected: dict[str, list[str]] = {}
    for name, values in headers.items():
        if not name.startswith(":"):
            expected.setdefault(canonical(name) if form == "canonical" else name.lower(), []).extend(values)
    assert seen(headers, form, "list") == expected
    assert seen(headers, form) == {
        name: ("; " if name.lower() == "cookie" else ", ").join(values) for name, values in expected.items()
    }


# client_ip


@pytest.mark.parametrize(
    ("given_ip", "expected"),
    [
        ("127.0.0.1:53818", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:53818", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("::", "::"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::443", "2001:db8::443"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0"),
    ],
)
def test_client_ip_is_the_bare_address(given_ip: str, expected: str) -> None:
    assert request({}, ip=given_ip)["client_ip"] == expected


@pytest.mark.parametrize(
    "garbage", ["", "unknown", "unix:", "[::1", "::1]:80", "192.0.2.1:", "1.2.3.4:x", "%"]
)
def test_client_ip_that_is_no_address_arrives_as_it_is(garbage: str) -> None:
    assert request({}, ip=garbage)["client_ip"] == garbage


@STEADY
@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_port_is_taken_off_every_address(address: Any, port: int) -> None:
    bare = str(address)
    bracketed = f"[{bare}]" if address.version == 6 else bare
    assert inputs.bare_ip(f"{bracketed}:{port}") == bare
    assert inputs.bare_ip(bracketed) == bare
    assert inputs.bare_ip(bare) == bare


@STEADY
@given(text=st.text(max_size=20) | st.text("[]:.%019af", max_size=20))
def test_no_client_ip_raises_or_grows(text: str) -> None:
    assert inputs.bare_ip(text) in text


# Bodies


def chunk(data: bytes, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "is_last": False,
        "total_size": None,
        "chunk_index": 0,
        "bytes_seen": len(data),
        **fields,
    }
    raw = inputs.body_chunk("id-1", data, base64.b64encode(data).decode(), **values)
    event = json.loads(raw.decode())
    assert isinstance(event, dict)
    return event


def test_body_chunk_has_the_published_fields() -> None:
    assert chunk(b"a=1", is_last=True, total_size=10, chunk_index=3, bytes_seen=10) == {
        "correlation_id": "id-1",
        "chunk_index": 3,
        "is_last": True,
        "total_size": 10,
        "bytes_seen": 10,
        "encoding": "utf-8",
        "data": "a=1",
    }


def test_total_size_that_is_not_known_is_null() -> None:
    assert chunk(b"x")["total_size"] is None


@pytest.mark.parametrize("data", [b"", b"text", "né 🔑".encode(), b"\0\r\n", b'"\\', b"\xef\xbb\xbfx"])
def test_chunk_of_utf_8_is_text(data: bytes) -> None:
    event = chunk(data)
    assert (event["encoding"], event["data"]) == ("utf-8", data.decode())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"text\xfe",
        "né".encode()[:2],
        b"\xc0\x80",  # NUL, too long
        b"\xed\xa0\x80",  # half of a surrogate pair
        b"\xf4\x90\x80\x80",  # past U+10FFFF
    ],
)
def test_chunk_of_anything_else_is_base64(data: bytes) -> None:
    event = chunk(data)
    assert (event["encoding"], base64.b64decode(event["data"], validate=True)) == ("base64", data)


@STEADY
@given(data=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_module_can_read_every_chunk(data: bytes) -> None:
    event = chunk(data)
    if event["encoding"] == "utf-8":
        assert event["data"].encode() == data
    else:
        assert event["encoding"] == "base64"
        assert re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", event["data"])
        assert base64.b64decode(event["data"], validate=True) == data


# Optional exports


def test_request_complete_gets_its_fields() -> None:
    fields = {
        "correlation_id": "id-1",
        "status": 200,
        "duration_ms": 12,
        "request_body_size": 0,
        "response_body_size": 512,
        "upstream_attempts": 1,
        "error": None,
    }
    assert json.loads(inputs.request_complete(fields)) == fields


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}), ({}, {}), (None, {}), ([1], [1]), ("x", "x")],
)
def test_configuration_is_wrapped(config: Any, expected: Any) -> None:
    assert json.loads(inputs.configure(config)) == {"config": expected}
