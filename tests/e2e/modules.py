"""Filters that do one odd thing, as WebAssembly text."""

from __future__ import annotations

from ..wat import module, quoted

# $has: 1 where the four letters of $word (as a little-endian number) stand in the event.
_HAS = """
  (func $has (param $at i32) (param $length i32) (param $word i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (i32.sub (local.get $length) (i32.const 4))))
    (loop $next
      (if (i32.eq (i32.load (local.get $at)) (local.get $word)) (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.le_u (local.get $at) (local.get $end))))
    (i32.const 0))
"""


def _word(letters: str) -> str:
    return f"(i32.const {int.from_bytes(letters.encode(), 'little')})"


# Traps at the uri /trap, allows everything else.
TRAPS_ON_TRAP = module(f"""{_HAS}
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (if (call $has (local.get 0) (local.get 1) {_word("trap")}) (then unreachable))
    (i64.const 0))
""")


# Looks at the clock for 300 ms at /slow and allows; blocks /deny with 403.
def slow_or_denies(**results: str) -> str:
    """And whose other hooks return these."""
    return module(
        imports="""(import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock (param i32 i64 i32) (result i32)))""",
        extra=f"""{_HAS}
  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 512)))
    (i64.load (i32.const 512)))
  (data (i32.const 8192) "{quoted('{"decision":"block"}')}")
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (local $end i64)
    (if (call $has (local.get 0) (local.get 1) {_word("deny")}) (then
      (return (i64.const {(8192 << 32) | 20}))))
    (if (call $has (local.get 0) (local.get 1) {_word("slow")}) (then
      (local.set $end (i64.add (call $now) (i64.const 300000000)))
      (loop $wait (br_if $wait (i64.lt_u (call $now) (local.get $end))))))
    (i64.const 0))
""",
        **results,
    )


SLOW_OR_DENIES = slow_or_denies()

REDIRECTS = module(on_request_headers='{"decision":"redirect","status":302,"body":"https://127.0.0.1/"}')

BLOCKS_RESPONSES = module(on_response_headers='{"decision":"block","status":451,"body":"withheld"}')

TRAPS_ON_BODIES = module("""
  (func (export "on_response_body") (param i32 i32) (result i64) unreachable)
""")

BLOCKS_BODIES = module(
    on_response_headers='{"decision":"allow","remove_response_headers":["Content-Length"]}',
    on_response_body='{"decision":"block","body":"withheld"}',
)

WITHHOLDS_BODIES = module(
    on_response_headers='{"decision":"allow","remove_response_headers":["Content-Length"]}',
    on_response_body=('{"decision":"allow","response_body_mutation":{"action":"replace","data":"withheld"}}'),
)
