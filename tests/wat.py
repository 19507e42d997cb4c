"""Modules as WebAssembly text, for tests that need one thing to be odd."""

from __future__ import annotations

from .guest.wat import literal

RUNTIME = """
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 65536))
  (func $alloc (export "alloc") (param i32) (result i32)
    ;; A bump allocator that begins again when an input would not fit: one event at a time needs no more.
    (if (i32.gt_u (i32.add (global.get $top) (local.get 0)) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (global.set $top (i32.const 65536))
        (if (i32.gt_u (i32.add (global.get $top) (local.get 0)) (i32.mul (memory.size) (i32.const 65536)))
          (then (drop (memory.grow (i32.add (i32.div_u (local.get 0) (i32.const 65536)) (i32.const 1))))))))
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get 0))))
  (func (export "dealloc") (param i32 i32))
"""


def quoted(text: str) -> str:
    return literal(text.encode())


def module(extra: str = "", *, imports: str = "", **results: str) -> str:
    """A module whose hooks (by keyword) return constant results; `extra` is more WAT for its end."""
    at = 1024
    parts = []
    for name, result in results.items():
        size = len(result.encode())
        packed = (at << 32) | size
        parts.append(
            f'(data (i32.const {at}) "{quoted(result)}")\n'
            f'  (func (export "{name}") (param i32 i32) (result i64)\n'
            f"    (i64.const {packed}))"
        )
        at += size
    return f"(module {imports} {RUNTIME}\n" + "\n".join(parts) + extra + ")"


def allowing(tag: str) -> str:
    """The result."""
    return f'{{"decision":"allow","tags":["{tag}"]}}'


IS_EMPTY = "(i32.le_u (local.get 1) (i32.const 13))"  # {"config":{}}


def refusing(reason: str, unless: str, **results: str) -> str:
    """A module that refuses each configuration unless this is so of its length, `(local.get 1)`."""
    text = module(on_configure=f'{{"error":"{reason}"}}', **results)
    head = '(func (export "on_configure") (param i32 i32) (result i64)'
    return text.replace(head, f"{head} (if {unless} (then (return (i64.const 0))))")
