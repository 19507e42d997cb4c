"""Any pointers from a module: the bytes that lie there in its memory, or a fault; never anything else."""

from __future__ import annotations

import re
import struct

from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS
from sentinel_wasm.guest.instance import Instance
from tests.guest import wat

from . import serving
from .targets import Target, any_byte

# What alloc returns next, the result, how far to grow, how the hook ends, how much input follows the order.
_ORDER = struct.Struct("<IQBBH")
_READ = 14  # the part of it that the module reads
_STEP = 5  # bytes of input for each one of the last
_CALLS = 4

_PAGES = 2
_GROWTH = 8  # pages for each of up to three in the order: a result of 1 MiB fits then
_PATTERN = bytes(range(1, 252)) * 261
_TRAP_IN_HOOK, _TRAP_IN_DEALLOC = 1, 2
_MOST = 1 << 20
_FREED = b"\xee"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")

# A module that does what its input says, and overwrites what it is given back.
_HOOK = f"""
    (if (i32.lt_u (local.get $n) (i32.const {_READ})) (then (return (i64.const 0))))
    (global.set $next (i32.load (local.get $p)))
    (drop (memory.grow (i32.mul (i32.const {_GROWTH})
        (i32.and (i32.load8_u (i32.add (local.get $p) (i32.const 12))) (i32.const 3)))))
    (global.set $ending (i32.load8_u (i32.add (local.get $p) (i32.const 13))))
    (if (i32.eq (global.get $ending) (i32.const {_TRAP_IN_HOOK})) (then unreachable))
    (i64.load (i32.add (local.get $p) (i32.const 4)))"""
_DEALLOC = f"""
    (if (i32.eq (global.get $ending) (i32.const {_TRAP_IN_DEALLOC})) (then unreachable))
    (memory.fill (local.get $p) (i32.const {_FREED[0]}) (local.get $n))"""
_MODULE = wat.module(
    "(global $next (mut i32) (i32.const 1024)) (global $ending (mut i32) (i32.const 0))",
    wat.data(0, _PATTERN),
    wat.data(_PAGES * wat.PAGE - 16, b"the memory's end"),
    wat.hook(_HOOK),
    pages=_PAGES,
    alloc="(global.get $next)",
    dealloc=_DEALLOC,
)


class Model:
    """The same module in Python."""

    def __init__(self) -> None:
        self.memory = bytearray(_PAGES * wat.PAGE)
        self.memory[: len(_PATTERN)] = _PATTERN
        self.memory[-16:] = b"the memory's end"
        self.next = 1024
        self.ending = 0

    def call(self, data: bytes) -> tuple[bytes | None, bool]:
        """(the result, whether the instance lives on). Raises GuestFault."""
        given = self.next
        if given == 0 or given + len(data) > len(self.memory):
            raise GuestFault("alloc")
        self.memory[given : given + len(data)] = data
        packed = self._hook(data)
        pointer, length = packed >> 32, packed & 0xFFFFFFFF
        if pointer == 0 or length == 0:
            return None, self._give_back([(given, len(data))])
        if length > _MOST or pointer + length > len(self.memory):
            raise GuestFault("result")
        result = bytes(self.memory[pointer : pointer + length])
        return result, self._give_back([(given, len(data)), (pointer, length)])

    def _hook(self, data: bytes) -> int:
        if len(data) < _READ:
            return 0
        self.next, packed, pages, self.ending = struct.unpack_from("<IQBB", data)
        self.memory += bytes((pages & 3) * _GROWTH * wat.PAGE)
        if self.ending == _TRAP_IN_HOOK:
            raise GuestFault("trap")
        assert isinstance(packed, int)
        return packed

    def _give_back(self, places: list[tuple[int, int]]) -> bool:
        if self.ending == _TRAP_IN_DEALLOC:
            return False
        for pointer, length in places:
            self.memory[pointer : pointer + length] = _FREED * length
        return True


def run(data: bytes) -> None:
    model = Model()
    with serving.instance(_MODULE) as instance:
        for at in range(0, min(len(data), _CALLS * _ORDER.size), _ORDER.size):
            order = data[at : at + _ORDER.size]
            more = _STEP * int.from_bytes(order[_READ:], "little") if len(order) == _ORDER.size else 0
            if not _agree(instance, model, order[:_READ] + b"x" * more):
                break


def _agree(instance: Instance, model: Model, data: bytes) -> bool:
    """Whether another call can follow."""
    found, reason = None, ""
    try:
        found = instance.call(ON_REQUEST_HEADERS, data, "id-1")
    except GuestFault as fault:
        reason = str(fault)
    try:
        wanted = model.call(data)
    except GuestFault:
        wanted = None
    if wanted is not None:
        result, lives_on = wanted
        assert (found, reason) == (result, "")
        lost = instance.guest.lost
        if lost is not None and lost.kind == "deadline":
            return False  # dealloc has milliseconds, and the machine was busy
        assert instance.usable == lives_on
        return lives_on
    assert reason.isprintable()
    assert reason != ""
    assert not _ADDRESS.search(reason)
    assert not instance.usable
    return False


def seeds() -> list[bytes]:
    end = _PAGES * wat.PAGE
    grown = end + 3 * _GROWTH * wat.PAGE
    places = [
        (1024, 0, 0),
        (1024, 16, 100),
        (1024, 1024, 14),
        (end - 14, end - 1000, 1000),
        (grown - 14, grown - _MOST, _MOST),
        (1024, 1, _MOST + 1),
        (0, 1, 1),
        (end - 13, end - 1, 1),
        (1024, end, 1),
        (1024, grown - 1, 2),
        (2**32 - 1, 2**31, 2**31),
        (2**31, 2**32 - 1, 2**32 - 1),
        (1024, 2**32 - 1, 1),
    ]
    orders = [
        _ORDER.pack(given, pointer << 32 | length, pages, ending, more)
        for given, pointer, length in places
        for pages, ending, more in [(0, 0, 0), (3, 0, 3), (1, 1, 0), (0, 2, 0)]
    ]
    return [
        *orders,
        *(a + b for a, b in zip(orders, orders[4:], strict=False)),
        b"".join(orders[:4]),
        b"short",
    ]


TARGET = Target(run, seeds, any_byte)
