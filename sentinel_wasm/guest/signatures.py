"""Wasm types in words, for messages and comparisons."""

from __future__ import annotations

from wasmtime import FuncType
from wasmtime._types import AsExternType

Signature = tuple[list[str], list[str]]


def signature_of(function: FuncType) -> Signature:
    return [str(kind) for kind in function.params], [str(kind) for kind in function.results]


def write(signature: Signature) -> str:
    """`(i32, i32) → i64`"""
    params, results = signature
    return f"({', '.join(params)}) → {', '.join(results) or '()'}"


def describe(kind: AsExternType) -> str:
    """`a function (i32) → i64`, `a global`"""
    if isinstance(kind, FuncType):
        return f"a function {write(signature_of(kind))}"
    return "a " + type(kind).__name__.removesuffix("Type").lower()
