"""What any function of a module can do wrong: traps and loops, for each place where they can happen."""

from __future__ import annotations

# name: (code, what the reason says of it)
TRAPS = {
    "unreachable": ("unreachable", "trap: unreachable"),
    "division by zero": ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "trap: integer division by zero"),
    "integer overflow": (
        "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
        "trap: integer overflow",
    ),
    "conversion of NaN": ("(drop (i32.trunc_f64_s (f64.const nan)))", "trap: bad conversion to integer"),
    "load outside": ("(drop (i32.load (i32.const -4)))", "trap: memory out of bounds"),
    "store across the end": (
        "(i64.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 7)) (i64.const 1))",
        "trap: memory out of bounds",
    ),
    "fill outside": (
        "(memory.fill (i32.const 1) (i32.const 0) (i32.const -1))",
        "trap: memory out of bounds",
    ),
    "dropped data segment": (
        "(data.drop $segment) (memory.init $segment (i32.const 0) (i32.const 0) (i32.const 1))",
        "trap: memory out of bounds",
    ),
    "null function": (
        "(call_indirect $functions (type $nothing) (i32.const 0))",
        "trap: indirect call to null",
    ),
    "function of another type": (
        "(call_indirect $functions (type $nothing) (i32.const 1))",
        "trap: bad signature",
    ),
    "function outside the table": (
        "(call_indirect $functions (type $nothing) (i32.const -1))",
        "trap: table out of bounds",
    ),
    "uncaught exception": ("(throw $thrown (i32.const 1))", "thrown Wasm exception"),
    "endless recursion": ("(drop (call $recurse (i32.const 0)))", "trap: stack overflow"),
}

# Shorter, for the places where each kind is enough.
FEW = {
    name: TRAPS[name]
    for name in ("unreachable", "division by zero", "load outside", "null function", "endless recursion")
}
FEWEST = {name: TRAPS[name] for name in ("unreachable", "load outside", "endless recursion")}

SPIN = "(loop $spin (br $spin))"
