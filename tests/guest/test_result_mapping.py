"""What hooks return, and what proxies get for it (guest-abi.md, "What the hooks return")."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from sentinel_wasm.decision import (
    ALLOW,
    Allow,
    Audit,
    Block,
    BodyMutation,
    Challenge,
    Decision,
    HeaderOp,
    Redirect,
    failure,
)
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest.abi import HOOKS, ON_REQUEST_HEADERS, ON_RESPONSE_BODY, parse_result
from sentinel_wasm.protocol import answers

from . import agent_response
from .steady import STEADY

pytestmark = pytest.mark.parallel

PHASES = ("request", "response")
STRING_LISTS = ("tags", "rule_ids", "reason_codes")


def parse(result: Any) -> Decision:
    return parse_result(json.dumps(result).encode(), ON_REQUEST_HEADERS)


def allowing(**fields: Any) -> Decision:
    return parse({"decision": "allow", **fields})


def refused(result: Any) -> str:
    """The reason for which a result is an error."""
    with pytest.raises(ResultError) as caught:
        parse(result)
    return str(caught.value)


def answer(result: Any, *, chunk_index: int = 0) -> dict[str, Any]:
    """The AgentResponse to a result, checked as a strict proxy would."""
    return agent_response.check(answers.encode(parse(result), 1, chunk_index=chunk_index))


# The result as a whole


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"decision": "allow", "body": "\xff"}', "not UTF-8"),
        (b'{"decision": "allow", "body": "\xed\xa0\x80"}', "not UTF-8"),
        (b"allow", "not JSON"),
        (b'{"decision": "allow"', "not JSON"),
        (b'{"decision": "allow"} {}', "not JSON"),
        (b"{'decision': 'allow'}", "not JSON"),
        (b'\xef\xbb\xbf{"decision": "allow"}', "not JSON"),
        (b'{"decision": "allow", "confidence": NaN}', "not JSON"),
        (b'{"decision": "allow", "confidence": Infinity}', "not JSON"),
        (b'{"decision": "allow", "body": "\\ud800"}', "not JSON"),
        (b"\0", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "null"),
        (b'"allow"', "string"),
        (b'[{"decision": "allow"}]', "array"),
        (b"1", "integer"),
        (b"true", "boolean"),
    ],
)
def test_result_that_is_no_object_is_an_error_that_says_what_it_is(raw: bytes, words: str) -> None:
    with pytest.raises(ResultError, match=words):
        parse_result(raw, ON_REQUEST_HEADERS)


@pytest.mark.parametrize("hook", range(len(HOOKS)))
def test_reason_names_the_hook(hook: int) -> None:
    with pytest.raises(ResultError, match=rf"\b{HOOKS[hook]}\b"):
        parse_result(b"{}", hook)


def test_fields_that_are_not_known_are_ignored() -> None:
    assert allowing(verdict="block", Status=1, tag=None, request_headers={"\r": 1}) == ALLOW


def test_result_of_a_decision_only_leaves_all_else_as_it_was() -> None:
    assert allowing() == Decision(Allow(), (), (), Audit((), (), None, ()), {}, None, None, False)


# decision


@pytest.mark.parametrize("word", ["allow", "ALLOW", "Allow", "aLLoW"])
def test_allow_in_any_letter_case(word: str) -> None:
    assert parse({"decision": word}).verdict == Allow()


@pytest.mark.parametrize("word", ["block", "BLOCK", "Block", "deny", "DENY", "Deny"])
def test_block_and_deny_in_any_letter_case(word: str) -> None:
    assert parse({"decision": word}).verdict == Block(403, None)


@pytest.mark.parametrize("word", ["redirect", "REDIRECT", "Redirect"])
def test_redirect_in_any_letter_case(word: str) -> None:
    assert parse({"decision": word, "body": "/login"}).verdict == Redirect("/login", 302)


@pytest.mark.parametrize("word", ["challenge", "CHALLENGE", "Challenge"])
def test_challenge_in_any_letter_case(word: str) -> None:
    assert parse({"decision": word, "challenge_type": "captcha"}).verdict == Challenge("captcha", {})


@pytest.mark.parametrize("word", ["", "allowed", " allow", "allow\n", "pass", "al", "decision", "bloc\u212a"])
def test_unknown_decision_is_an_error(word: str) -> None:
    assert "decision" in refused({"decision": word})


@pytest.mark.parametrize("result", [{}, {"decision": None}, {"Decision": "allow"}])
def test_missing_decision_is_an_error(result: Any) -> None:
    assert "decision is missing" in refused(result)


# Types of all fields

WRONG: dict[str, list[Any]] = {
    "decision": [1, True, ["allow"], {"allow": {}}],
    "status": ["403", True, 403.5, [403], {}],
    "body": [1, False, ["x"], {"text": "x"}],
    "challenge_type": [1, True, [], {}],
    "challenge_params": ["a=b", 1, True, [["a", "b"]], {"a": None}, {"a": ["b"]}, {"a": {}}],
    "routing_metadata": ["a=b", 1, True, [["a", "b"]], {"a": None}, {"a": ["b"]}, {"a": {}}],
    "confidence": ["0.5", True, [0.5], {}],
    "needs_more": ["true", 1, 0, [], {}],
    **{
        f"{change}_{phase}_headers": [
            "X-A: 1",
            1,
            True,
            [["X-A", "1"]],
            {"X-A": None},
            {"X-A": 1},
            {"X-A": True},
            {"X-A": {}},
            {"X-A": ["1", 2]},
            {"X-A": [None]},
            {"X-A": [["1"]]},
        ]
        for change in ("add", "append")
        for phase in PHASES
    },
    **{
        f"remove_{phase}_headers": ["X-A", 1, True, {"X-A": "1"}, [1], [None], [["X-A"]], ["X-A", 1]]
        for phase in PHASES
    },
    **{field: ["a", 1, True, {"a": "b"}, [1], [None], [["a"]], ["a", 1]] for field in STRING_LISTS},
    **{
        f"{phase}_body_mutation": [
            "drop",
            1,
            True,
            ["drop"],
            {},
            {"action": None},
        ]
        for phase in PHASES
    },
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_wrong_type_is_an_error_that_names_the_field(field: str, value: Any) -> None:
    assert field in refused({"decision": "allow", field: value})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", 1),
        ("chunk_index", "0"),
        ("chunk_index", True),
        ("chunk_index", 0.5),
        ("data", 1),
        ("data", ["x"]),
        ("encoding", 1),
        ("encoding", True),
    ],
)
def test_wrong_type_in_a_mutation_is_an_error_that_names_the_field(
    phase: str, field: str, value: Any
) -> None:
    mutation = {"action": "replace", "data": "x", field: value}
    assert field in refused({"decision": "allow", f"{phase}_body_mutation": mutation})


@pytest.mark.parametrize("field", [field for field in WRONG if field != "decision"])
def test_null_is_the_same_as_absence(field: str) -> None:
    assert allowing(**{field: None}) == ALLOW


@pytest.mark.parametrize("field", ["chunk_index", "data", "encoding"])
def test_null_in_a_mutation_is_the_same_as_absence(field: str) -> None:
    mutation = {"action": "drop", field: None}
    assert allowing(response_body_mutation=mutation).response_body == BodyMutation(b"", None)


# status and body


@pytest.mark.parametrize("status", [100, 200, 403, 429, 500, 599])
def test_status_of_a_block(status: int) -> None:
    assert parse({"decision": "block", "status": status}).verdict == Block(status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_status_of_a_redirect(status: int) -> None:
    result = {"decision": "redirect", "body": "https://example.com/", "status": status}
    assert parse(result).verdict == Redirect("https://example.com/", status)


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 65536 + 403, 2**64 + 403])
def test_status_of_a_block_out_of_range_is_an_error(status: int) -> None:
    assert "status" in refused({"decision": "block", "status": status})


@pytest.mark.parametrize("status", [0, 200, 300, 304, 305, 306, 309, 403, 65536 + 302])
def test_status_that_is_no_redirect_is_an_error(status: int) -> None:
    assert "status" in refused({"decision": "redirect", "body": "/", "status": status})


@pytest.mark.parametrize("status", [99, 600])
@pytest.mark.parametrize(
    "verdict", [{"decision": "allow"}, {"decision": "challenge", "challenge_type": "js"}]
)
def test_status_out_of_range_is_an_error_where_it_is_not_used_too(verdict: Any, status: int) -> None:
    assert "status" in refused({**verdict, "status": status})


@pytest.mark.parametrize("body", ["", "Forbidden", "ключ 🔑", "a\r\nb\0c"])
def test_body_of_a_block_is_any_text(body: str) -> None:
    assert answer({"decision": "block", "body": body})["decision"]["block"]["body"] == body


def test_block_without_body_has_none() -> None:
    assert answer({"decision": "block"})["decision"] == {
        "block": {"status": 403, "body": None, "headers": None}
    }


@pytest.mark.parametrize("fields", [{}, {"body": None}, {"body": ""}, {"url": "/"}])
def test_redirect_without_url_is_an_error(fields: Any) -> None:
    assert "URL" in refused({"decision": "redirect", **fields})


@pytest.mark.parametrize("forbidden", ["\r", "\n", "\0", "\r\nSet-Cookie: a=b"])
def test_redirect_url_that_ends_its_header_is_an_error(forbidden: str) -> None:
    assert "URL" in refused({"decision": "redirect", "body": f"/a{forbidden}"})


def test_redirect_on_the_wire() -> None:
    result = {"decision": "redirect", "body": "/login?next=%2F", "status": 307}
    assert answer(result)["decision"] == {"redirect": {"url": "/login?next=%2F", "status": 307}}


# challenge


@pytest.mark.parametrize("fields", [{}, {"challenge_type": None}, {"challenge_type": ""}])
def test_challenge_without_type_is_an_error(fields: Any) -> None:
    assert "challenge_type" in refused({"decision": "challenge", **fields})


TEXTS = [
    ("text", "text"),
    ("", ""),
    (3, "3"),
    (-7, "-7"),
    (0, "0"),
    (2**63, str(2**63)),
    (1.5, "1.5"),
    (-0.25, "-0.25"),
    (True, "true"),
    (False, "false"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_challenge_params_become_text(value: Any, text: str) -> None:
    result = {"decision": "challenge", "challenge_type": "pow", "challenge_params": {"n": value}}
    assert answer(result)["decision"] == {"challenge": {"challenge_type": "pow", "params": {"n": text}}}


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_routing_metadata_becomes_text(value: Any, text: str) -> None:
    result = {"decision": "allow", "routing_metadata": {"shard": value, "zone": "b"}}
    assert answer(result)["routing_metadata"] == {"shard": text, "zone": "b"}


def test_params_are_an_object_where_the_module_gives_none() -> None:
    result = {"decision": "challenge", "challenge_type": "captcha", "challenge_params": None}
    assert answer(result)["decision"]["challenge"]["params"] == {}


# Headers


def header_ops(phase: str, **fields: Any) -> tuple[HeaderOp, ...]:
    decision = allowing(**{f"{change}_{phase}_headers": value for change, value in fields.items()})
    ours, others = decision.request_headers, decision.response_headers
    if phase == "response":
        ours, others = others, ours
    assert not others
    return ours


@pytest.mark.parametrize("phase", PHASES)
def test_added_header_becomes_a_set(phase: str) -> None:
    ops = header_ops(phase, add={"X-A": "1", "X-B": ""})
    assert ops == (HeaderOp("set", "X-A", "1"), HeaderOp("set", "X-B", ""))


@pytest.mark.parametrize("phase", PHASES)
def test_added_list_becomes_a_set_and_adds(phase: str) -> None:
    ops = header_ops(phase, add={"Set-Cookie": ["a=1", "b=2", "c=3"]})
    assert ops == (
        HeaderOp("set", "Set-Cookie", "a=1"),
        HeaderOp("add", "Set-Cookie", "b=2"),
        HeaderOp("add", "Set-Cookie", "c=3"),
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("values", ["a=1", ["a=1"]])
def test_appended_header_becomes_an_add(phase: str, values: Any) -> None:
    assert header_ops(phase, append={"Set-Cookie": values}) == (HeaderOp("add", "Set-Cookie", "a=1"),)


@pytest.mark.parametrize("phase", PHASES)
def test_appended_list_becomes_adds_only(phase: str) -> None:
    ops = header_ops(phase, append={"Set-Cookie": ["a=1", "b=2"]})
    assert ops == (HeaderOp("add", "Set-Cookie", "a=1"), HeaderOp("add", "Set-Cookie", "b=2"))


@pytest.mark.parametrize("phase", PHASES)
def test_removed_header_becomes_a_remove(phase: str) -> None:
    ops = header_ops(phase, remove=["Server", "X-Powered-By"])
    assert ops == (HeaderOp("remove", "Server"), HeaderOp("remove", "X-Powered-By"))


@pytest.mark.parametrize("phase", PHASES)
def test_name_in_set_and_remove_is_removed(phase: str) -> None:
    ops = header_ops(phase, remove=["X-A"], append={"X-A": "3"}, add={"X-A": ["1", "2"]})
    assert [op.op for op in ops] == ["set", "add", "add", "remove"]


@pytest.mark.parametrize("phase", PHASES)
def test_append_to_what_is_set_comes_after_the_set(phase: str) -> None:
    # The append is written first, and its name is another set's: no set may wipe it.
    ops = header_ops(phase, append={"X-B": "2"}, add={"X-A": ["1", "2"], "X-B": "1"})
    assert ops.index(HeaderOp("set", "X-B", "1")) < ops.index(HeaderOp("add", "X-B", "2"))


@pytest.mark.parametrize("phase", PHASES)
def test_header_operations_on_the_wire(phase: str) -> None:
    result = {
        "decision": "allow",
        f"add_{phase}_headers": {"X-A": ["1", "2"]},
        f"append_{phase}_headers": {"X-B": "3"},
        f"remove_{phase}_headers": ["X-C"],
    }
    assert answer(result)[f"{phase}_headers"] == [
        {"set": {"name": "X-A", "value": "1"}},
        {"add": {"name": "X-A", "value": "2"}},
        {"add": {"name": "X-B", "value": "3"}},
        {"remove": {"name": "X-C"}},
    ]


TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # RFC 9110, 5.6.2
NO_TOKENS = ["", *(chr(code) for code in [*range(0x80), 0xE9, 0x212A, 0xFF21] if chr(code) not in TOKEN)]


def naming(change: str, phase: str, name: str) -> dict[str, Any]:
    value: Any = [name] if change == "remove" else {name: "1"}
    return {"decision": "allow", f"{change}_{phase}_headers": value}


@pytest.mark.parametrize("change", ["add", "append", "remove"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("bad", NO_TOKENS)
def test_header_name_that_is_no_token_is_an_error(change: str, phase: str, bad: str) -> None:
    assert "header name" in refused(naming(change, phase, f"X{bad}A" if bad else ""))


@pytest.mark.parametrize("change", ["add", "append", "remove"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["X-A\n", "\nX-A", ":path", "X-A "])
def test_header_name_with_more_around_it_is_an_error(change: str, phase: str, name: str) -> None:
    assert "header name" in refused(naming(change, phase, name))


def test_header_name_may_hold_every_token_character() -> None:
    assert header_ops("request", remove=[TOKEN]) == (HeaderOp("remove", TOKEN),)


@pytest.mark.parametrize("change", ["add", "append"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("forbidden", ["\r", "\n", "\0"])
@pytest.mark.parametrize("form", ["{}", "a{}", "{}a", "a{}b"])
def test_header_value_with_cr_lf_or_nul_is_an_error(
    change: str, phase: str, forbidden: str, form: str
) -> None:
    value = form.format(forbidden)
    for values in (value, ["fine", value]):
        assert "X-A" in refused({"decision": "allow", f"{change}_{phase}_headers": {"X-A": values}})


@pytest.mark.parametrize("value", ["", " ", "a\tb", "né", "日本", "\x7f", 'a, b; c="d"'])
def test_header_value_may_be_any_other_text(value: str) -> None:
    assert header_ops("response", add={"X-A": value}) == (HeaderOp("set", "X-A", value),)


# Audit and needs_more


@pytest.mark.parametrize("field", STRING_LISTS)
@pytest.mark.parametrize("values", [[], ["one"], ["one", "two", "one"], [""]])
def test_audit_list_reaches_the_proxy(field: str, values: list[str]) -> None:
    assert answer({"decision": "allow", field: values})["audit"][field] == values


@pytest.mark.parametrize("confidence", [0, 1, 0.0, 0.5, 1.0, 1e-300])
def test_confidence_reaches_the_proxy(confidence: float) -> None:
    assert answer({"decision": "block", "confidence": confidence})["audit"]["confidence"] == confidence


@pytest.mark.parametrize("confidence", [-1, 2, -0.001, 1.001, 1e300, -1e300, 2**70])
def test_confidence_outside_0_to_1_is_an_error(confidence: float) -> None:
    assert "confidence" in refused({"decision": "allow", "confidence": confidence})


def test_audit_of_a_silent_module_is_empty() -> None:
    assert answer({"decision": "allow"})["audit"] == {
        "tags": [],
        "rule_ids": [],
        "confidence": None,
        "reason_codes": [],
        "custom": {},
    }


@pytest.mark.parametrize("more", [True, False])
def test_needs_more_reaches_the_proxy(more: bool) -> None:
    assert answer({"decision": "block", "needs_more": more})["needs_more"] is more


# Body mutations


def mutated(phase: str, mutation: Any, *, chunk_index: int = 0) -> Any:
    result = {"decision": "allow", f"{phase}_body_mutation": mutation}
    return answer(result, chunk_index=chunk_index)[f"{phase}_body_mutation"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("mutation", "data"),
    [
        ({"action": "pass_through"}, None),
        ({"action": "pass_through", "data": "ignored"}, None),
        ({"action": "drop"}, ""),
        ({"action": "drop", "data": "ignored"}, ""),
    ],
)
def test_mutations_without_data_on_the_wire(phase: str, mutation: Any, data: str | None) -> None:
    assert mutated(phase, mutation) == {"data": data, "chunk_index": 0}


@pytest.mark.parametrize("text", ["new", "", "né 🔑", "a\r\n\0b"])
def test_replaced_request_body_is_raw_text_on_the_wire(text: str) -> None:
    assert mutated("request", {"action": "replace", "data": text})["data"] == text


@pytest.mark.parametrize("text", ["new", "né 🔑", "a\r\n\0b"])
def test_request_body_given_in_base64_is_raw_text_on_the_wire(text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    assert mutated("request", {"action": "replace", "data": encoded, "encoding": "base64"})["data"] == text


@pytest.mark.parametrize("text", ["new", "", "né 🔑", "a\r\n\0b"])
def test_replaced_response_body_is_base64_on_the_wire(text: str) -> None:
    data = mutated("response", {"action": "replace", "data": text})["data"]
    assert base64.b64decode(data, validate=True) == text.encode()


@pytest.mark.parametrize("raw", [b"new", b"\xff\xfe\0", bytes(range(256))])
def test_response_body_given_in_base64_is_base64_on_the_wire(raw: bytes) -> None:
    encoded = base64.b64encode(raw).decode()
    assert (
        mutated("response", {"action": "replace", "data": encoded, "encoding": "base64"})["data"] == encoded
    )


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80"])
def test_request_body_that_is_no_text_is_an_error_that_says_so(raw: bytes) -> None:
    mutation = {"action": "replace", "data": base64.b64encode(raw).decode(), "encoding": "base64"}
    assert "text" in refused({"decision": "allow", "request_body_mutation": mutation})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "data", ["YQ", "YQ=", "Y", "=", "====", "YQ==YQ==", " YQ==", "YQ==\n", "Y_8=", "né=="]
)
def test_data_that_is_no_padded_standard_base64_is_an_error(phase: str, data: str) -> None:
    mutation = {"action": "replace", "data": data, "encoding": "base64"}
    assert "base64" in refused({"decision": "allow", f"{phase}_body_mutation": mutation})


@pytest.mark.parametrize("phase", PHASES)
def test_text_that_looks_like_base64_is_text(phase: str) -> None:
    data = mutated(phase, {"action": "replace", "data": "YQ==", "encoding": "utf-8"})["data"]
    assert (data if phase == "request" else base64.b64decode(data)) in ("YQ==", b"YQ==")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "mutation",
    [
        {"action": "replace"},
        {"action": "replace", "data": None},
        {"action": "replace", "encoding": "base64"},
    ],
)
def test_replace_without_data_is_an_error(phase: str, mutation: Any) -> None:
    assert "without data" in refused({"decision": "allow", f"{phase}_body_mutation": mutation})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("action", ["", "Replace", "DROP", "passthrough", "remove"])
def test_unknown_action_is_an_error(phase: str, action: str) -> None:
    assert "action" in refused(
        {"decision": "allow", f"{phase}_body_mutation": {"action": action, "data": ""}}
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("encoding", ["utf8", "BASE64", "hex"])
def test_unknown_encoding_is_an_error(phase: str, encoding: str) -> None:
    mutation = {"action": "replace", "data": "", "encoding": encoding}
    assert "encoding" in refused({"decision": "allow", f"{phase}_body_mutation": mutation})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("action", ["pass_through", "replace", "drop"])
def test_missing_chunk_index_is_the_chunk_at_hand(phase: str, action: str) -> None:
    assert mutated(phase, {"action": action, "data": "x"}, chunk_index=7)["chunk_index"] == 7


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("action", ["pass_through", "replace", "drop"])
@pytest.mark.parametrize("index", [0, 3, 2**32 - 1])
def test_chunk_index_that_the_module_gives_is_sent(phase: str, action: str, index: int) -> None:
    mutation = {"action": action, "data": "x", "chunk_index": index}
    assert mutated(phase, mutation, chunk_index=7)["chunk_index"] == index


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("index", [-1, 2**32, 2**70])
def test_chunk_index_out_of_range_is_an_error(phase: str, index: int) -> None:
    mutation = {"action": "drop", "chunk_index": index}
    assert "chunk_index" in refused({"decision": "allow", f"{phase}_body_mutation": mutation})


# When the module fails


def test_failure_allows_under_fail_open() -> None:
    decision = failure("trap: unreachable in on_request_headers", fail_open=True)
    assert decision.verdict == Allow()
    assert set(decision.audit.tags) == {"wasm-error", "fail-open"}


def test_failure_blocks_otherwise() -> None:
    decision = failure("trap: unreachable in on_request_headers", fail_open=False)
    assert decision.verdict == Block(500, "Wasm Error")
    assert decision.audit.tags == ("wasm-error",)


@pytest.mark.parametrize("fail_open", [True, False])
def test_failure_gives_its_reason(fail_open: bool) -> None:
    reason = "result is not JSON: unexpected end"
    response = agent_response.check(answers.encode(failure(reason, fail_open=fail_open), 2))
    assert response["audit"]["reason_codes"] == [reason]


@pytest.mark.parametrize(
    "result",
    [
        {"decision": "x" * 1_000_000},
        {"decision": "allow", "add_request_headers": {"x" * 1_000_000: 1}},
        {"decision": "allow", "add_request_headers": {"x" * 1_000_000: "\n"}},
        {"decision": "allow", "remove_request_headers": ["\n" * 1_000_000]},
        {"decision": "allow", "routing_metadata": {"x" * 1_000_000: None}},
        {"decision": "allow", "request_body_mutation": {"action": "x" * 1_000_000}},
        {"decision": "allow", "request_body_mutation": {"action": "drop", "encoding": "x" * 1_000_000}},
    ],
    ids=["decision", "type", "value", "name", "metadata", "action", "encoding"],
)
def test_reason_is_short_however_long_the_result(result: Any) -> None:
    # The reason goes into the log and to the proxy, on every request.
    assert len(refused(result)) < 1000


# Anything at all

NAMES = st.text(TOKEN + ": \r\né", max_size=4)
TEXT = st.text(max_size=6)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(
    st.text(TOKEN, min_size=1, max_size=4), TEXT | st.lists(TEXT, max_size=3), max_size=3
)
PAIRS = st.dictionaries(TEXT, TEXT | st.booleans() | NUMBERS, max_size=3)
MUTATION = st.fixed_dictionaries(
    {"action": st.sampled_from(["pass_through", "replace", "drop"]), "data": TEXT | st.just("YWI=")},
    optional={
        "chunk_index": st.integers(-1, 2**32),
        "encoding": st.sampled_from(["utf-8", "base64"]),
    },
)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "decision": st.sampled_from(["allow", "block", "Deny", "REDIRECT", "challenge"]),
    "status": st.sampled_from([99, 100, 301, 302, 308, 403, 599, 600]) | st.integers(),
    "body": TEXT,
    "challenge_type": TEXT,
    "challenge_params": PAIRS,
    "confidence": st.floats(0, 1),
    "routing_metadata": PAIRS,
    "needs_more": st.booleans(),
    **{f"{change}_{phase}_headers": HEADERS for change in ("add", "append") for phase in PHASES},
    **{f"remove_{phase}_headers": st.lists(st.text(TOKEN, min_size=1), max_size=3) for phase in PHASES},
    **{field: st.lists(TEXT, max_size=3) for field in STRING_LISTS},
    **{f"{phase}_body_mutation": MUTATION for phase in PHASES},
}
NEARLY_RIGHT = st.fixed_dictionaries(
    {"decision": RIGHT["decision"]}, optional={name: RIGHT[name] for name in RIGHT if name != "decision"}
)
WILD = st.builds(
    lambda good, wild: {**good, **wild},
    NEARLY_RIGHT,
    st.dictionaries(st.sampled_from([*RIGHT]), ANYTHING, max_size=2),
)


def answered(raw: bytes, hook: int) -> dict[str, Any] | None:
    """The answer to any result, checked; None where it is a ResultError, the only error there may be."""
    try:
        decision = parse_result(raw, hook)
    except ResultError as error:
        json.dumps(str(error)).encode()
        event("refused")
        return None
    event("accepted")
    return agent_response.check(answers.encode(decision, 1, chunk_index=2))


@STEADY
@given(raw=st.binary(max_size=200), hook=st.integers(0, ON_RESPONSE_BODY))
@example(raw=b"[" * 2000 + b"]" * 2000, hook=0)
@example(raw=b'{"decision":"allow","confidence":1e400}', hook=0)
@example(raw=b'{"decision":"allow","status":-0}', hook=0)
def test_no_bytes_raise_anything_but_result_error(raw: bytes, hook: int) -> None:
    answered(raw, hook)


@STEADY
@given(result=ANYTHING, hook=st.integers(0, ON_RESPONSE_BODY))
def test_no_json_raises_anything_but_result_error(result: Any, hook: int) -> None:
    answered(json.dumps(result).encode(), hook)


@STEADY
@given(result=WILD, hook=st.integers(0, ON_RESPONSE_BODY))
def test_no_object_raises_anything_but_result_error(result: Any, hook: int) -> None:
    answered(json.dumps(result).encode(), hook)


@STEADY
@given(result=NEARLY_RIGHT, hook=st.integers(0, ON_RESPONSE_BODY))
def test_accepted_result_gives_an_answer_that_a_strict_proxy_reads(result: Any, hook: int) -> None:
    answered(json.dumps(result).encode(), hook)


@STEADY
@given(
    good=NEARLY_RIGHT,
    bad=st.sampled_from([(field, value) for field in WRONG for value in WRONG[field]]),
)
def test_one_wrong_field_is_never_a_silent_allow(good: dict[str, Any], bad: tuple[str, Any]) -> None:
    field, value = bad
    refused({**good, field: value})


@STEADY
@given(params=PAIRS)
def test_text_of_a_number_reads_as_the_same_number(params: dict[str, Any]) -> None:
    texts = allowing(routing_metadata=params).routing_metadata
    assert texts.keys() == params.keys()
    for name, value in params.items():
        if isinstance(value, str):
            assert texts[name] == value
        elif isinstance(value, bool) or not isinstance(value, int) or abs(value) < 2**63:
            assert json.loads(texts[name]) == value
        else:
            assert math.isclose(json.loads(texts[name]), value)


@STEADY
@given(raw=st.binary(max_size=50), phase=st.sampled_from(PHASES))
def test_replaced_bytes_arrive_as_the_module_meant_them(raw: bytes, phase: str) -> None:
    mutation = {"action": "replace", "data": base64.b64encode(raw).decode(), "encoding": "base64"}
    result = {"decision": "allow", f"{phase}_body_mutation": mutation}
    response = answered(json.dumps(result).encode(), ON_RESPONSE_BODY)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None
    if phase == "request":
        assert (response["request_body_mutation"]["data"] if response else None) == text
    else:
        assert response is not None
        assert base64.b64decode(response["response_body_mutation"]["data"]) == raw


@STEADY
@given(identity=TEXT)
def test_correlation_id_goes_where_the_proxy_looks_for_it(identity: str) -> None:
    answer = answers.with_correlation_id(answers.encode(ALLOW, 2), identity)
    assert agent_response.check(answer)["audit"]["custom"] == {"correlation_id": identity}


@STEADY
@given(result=NEARLY_RIGHT)
def test_letter_case_and_unknown_fields_change_nothing(result: dict[str, Any]) -> None:
    other = {**result, "decision": result["decision"].swapcase(), "x-unknown": [None]}
    assert answered(json.dumps(result).encode(), 0) == answered(json.dumps(other).encode(), 0)
