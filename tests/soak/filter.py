"""A module that does what its input asks for: `~`, a letter, and eight characters to give back.

Its answer holds those characters and the sum of the bytes from `~` to the next quote, so that an answer to
another event, or to a damaged one, is not the right one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..guest import wat

TOKEN = b"TTTTTTTT"
SUM = b"SSSSSSSS"

ALLOW, BLOCK, CHALLENGE, HEADERS, REQUEST_BODY, RESPONSE_BODY = "abchqr"
NOT_JSON, BAD_POINTER, TRAP, MEMORY_HOG, SPIN = "nptgs"

_RESULTS = {
    ALLOW: b'{"decision":"allow","tags":["TTTTTTTT","SSSSSSSS"]}',
    BLOCK: b'{"decision":"block","status":418,"body":"TTTTTTTT","tags":["SSSSSSSS"]}',
    CHALLENGE: b'{"decision":"challenge","challenge_type":"captcha","challenge_params":{"key":"TTTTTTTT"},'
    b'"tags":["SSSSSSSS"]}',
    HEADERS: b'{"decision":"allow","add_request_headers":{"X-Token":"TTTTTTTT"},'
    b'"remove_response_headers":["X-Token"],"tags":["SSSSSSSS"]}',
    REQUEST_BODY: b'{"decision":"allow","request_body_mutation":{"action":"replace","data":"TTTTTTTT"},'
    b'"tags":["SSSSSSSS"]}',
    RESPONSE_BODY: b'{"decision":"allow","response_body_mutation":{"action":"replace","data":"TTTTTTTT"},'
    b'"tags":["SSSSSSSS"]}',
    NOT_JSON: b"TTTTTTTT is not JSON, SSSSSSSS",
}
_NOTHING_ASKED = b'{"decision":"allow","tags":["nothing asked"]}'

_BODIES = {
    BAD_POINTER: "(return (i64.const 0xfffffff000000040))",
    TRAP: "unreachable",
    MEMORY_HOG: "(loop $more (br_if $more (i32.gt_s (memory.grow (i32.const 9)) (i32.const 0)))) unreachable",
    SPIN: "(loop $spin (br $spin))",
}

_INPUT = 65536
_HOOKS = ("on_request_headers", "on_request_body", "on_response_headers", "on_response_body")

# Takes the place above the results, which begin at wat.RESULT.
_ALLOC = f"""
    (if (i32.gt_u (local.get $n) (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const {_INPUT})))
      (then
        (if (i32.lt_s
            (memory.grow (i32.add (i32.shr_u (local.get $n) (i32.const 16)) (i32.const 1)))
            (i32.const 0))
          (then (return (i32.const 0))))))
    (i32.const {_INPUT})"""


@dataclass(frozen=True)
class _Result:
    letter: str
    at: int
    text: bytes

    def finish(self) -> str:
        """Writes the token and the sum to their places, and returns the result."""
        token, total = self.text.find(TOKEN), self.text.find(SUM)
        return f"""
            (i64.store (i32.const {self.at + token}) (i64.load offset=2 (local.get $at)))
            (call $write_hex (i32.const {self.at + total}) (call $sum (local.get $at)))
            (return {wat.returns(self.at, len(self.text))})"""


def _results() -> list[_Result]:
    results, at = [], wat.RESULT
    for letter, text in _RESULTS.items():
        results.append(_Result(letter, at, text))
        at += len(text)
    return results


_FUNCTIONS = """
    (func $find (param $at i32) (param $end i32) (result i32)
      (loop $next
        (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (i32.const 0))))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0x7e)) (then (return (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))
      unreachable)
    (func $sum (param $at i32) (result i32) (local $sum i32) (local $byte i32)
      (loop $next
        (local.set $byte (i32.load8_u (local.get $at)))
        (if (i32.ne (local.get $byte) (i32.const 0x22)) (then
          (local.set $sum (i32.add (local.get $sum) (local.get $byte)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
      (local.get $sum))
    (func $write_hex (param $at i32) (param $value i32) (local $i i32) (local $digit i32)
      (local.set $i (i32.const 8))
      (loop $next
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (local.set $digit (i32.and (local.get $value) (i32.const 15)))
        (local.set $value (i32.shr_u (local.get $value) (i32.const 4)))
        (i32.store8 (i32.add (local.get $at) (local.get $i))
          (i32.add (local.get $digit)
            (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
        (br_if $next (local.get $i))))"""


def text() -> str:
    """The module."""
    results = _results()
    nothing = results[-1].at + len(results[-1].text)
    bodies = {result.letter: result.finish() for result in results} | _BODIES
    cases = "".join(
        f"(if (i32.eq (local.get $letter) (i32.const {ord(letter)})) (then {body}))"
        for letter, body in bodies.items()
    )
    answer = f"""
    (func $answer (param $p i32) (param $n i32) (result i64) (local $at i32) (local $letter i32)
      (local.set $at (call $find (local.get $p) (i32.add (local.get $p) (local.get $n))))
      (if (i32.eqz (local.get $at)) (then (return {wat.returns(nothing, len(_NOTHING_ASKED))})))
      (local.set $letter (i32.load8_u offset=1 (local.get $at)))
      {cases}
      unreachable)"""
    return wat.module(
        *(wat.data(result.at, result.text) for result in results),
        wat.data(nothing, _NOTHING_ASKED),
        _FUNCTIONS,
        answer,
        *(wat.hook("(call $answer (local.get $p) (local.get $n))", name) for name in _HOOKS),
        pages=2,
        alloc=_ALLOC,
    )
