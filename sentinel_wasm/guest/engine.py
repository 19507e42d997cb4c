"""The wasmtime engine that runs the instances of one agent."""

from __future__ import annotations

import ctypes
import mmap
import resource

import structlog
import wasmtime
from wasmtime import Config
from wasmtime import _ffi as ffi

from sentinel_wasm._ticker import Ticker
from sentinel_wasm.guest import capi  # noqa: F401  (binds the C API)
from sentinel_wasm.guest.limits import MIB, STACK_BYTES, TABLE_ELEMENTS, TABLES
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("engine")

# What an instance dirties of its memory is wiped up to here, and given back to the kernel beyond: measured as
# the quickest for the C, Rust and AssemblyScript examples (5, 27 and 10 µs from start to end).
_KEPT_RESIDENT_BYTES = 128 * 1024
_RESERVED_A_SLOT = 6 << 30  # wasmtime's default: 4 GiB and a guard at each end
_WASM32_BYTES = 4 << 30
_MAP_NORESERVE = 0x4000
_PROT_NONE = 0


def address(managed: wasmtime.Engine | wasmtime.InstancePre) -> int:
    """Where the C API has it."""
    return ctypes.addressof(managed.ptr().contents)


class Engine(wasmtime.Engine):
    """An engine whose epoch moves while guests run; each instance has at most `memory_bytes` of memory."""

    def __init__(self, config: Config, memory_bytes: int) -> None:
        super().__init__(config)
        self.memory_bytes = memory_bytes
        self.ticker = Ticker(address(self))

    def end(self) -> None:
        """Free it: nothing runs on it any more. Takes up to a tick, in which other threads may run."""
        self.ticker.stop()
        self.close()


def make_engine(instances: int = 16, memory_bytes: int = 64 * MIB) -> Engine:
    """An engine with room for so many instances at once, each with at most so much memory.

    What is compiled with one can be loaded with every other of the same `memory_bytes`.
    """
    config = Config()
    config.epoch_interruption = True
    config.max_wasm_stack = STACK_BYTES
    config.wasm_threads = False
    config.wasm_gc = False
    config.wasm_function_references = False
    if _has_address_space(instances * _RESERVED_A_SLOT):
        _pool(config, instances, memory_bytes)
    else:
        _log.warning("the address space is limited (ulimit -v): instances start and run more slowly")
        ffi.wasmtime_config_memory_reservation_set(config.ptr(), MIB)
        ffi.wasmtime_config_memory_reservation_for_growth_set(config.ptr(), MIB)
        ffi.wasmtime_config_memory_guard_size_set(config.ptr(), 64 * 1024)
    return Engine(config, memory_bytes)


def engine_for(settings: Settings) -> Engine:
    """An engine for one agent's instances, and a few that are ending."""
    own = settings.request_instances if settings.isolation == "request" else 0
    return make_engine(settings.pool_size + own + 8, settings.memory_limit * MIB)


def _has_address_space(size: int) -> bool:
    """wasmtime ends the process where its pooling allocator cannot reserve what it wants."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return False
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE, prot=_PROT_NONE).close()
    except (OSError, OverflowError):
        return False
    return True


def _pool(config: Config, instances: int, memory_bytes: int) -> None:
    """Slots made in advance: an instance starts in microseconds, and its memory is wiped when it ends."""
    pool = ffi.wasmtime_pooling_allocation_config_new()
    ffi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, instances)
    ffi.wasmtime_pooling_allocation_config_total_memories_set(pool, instances)
    # One memory is all that a store allows; a module with more is told so when it is started.
    ffi.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 8)
    ffi.wasmtime_pooling_allocation_config_total_tables_set(pool, instances * TABLES)
    ffi.wasmtime_pooling_allocation_config_total_stacks_set(pool, 0)
    ffi.wasmtime_pooling_allocation_config_total_gc_heaps_set(pool, instances)
    ffi.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, TABLES)
    ffi.wasmtime_pooling_allocation_config_table_elements_set(pool, TABLE_ELEMENTS)
    ffi.wasmtime_pooling_allocation_config_max_memory_size_set(pool, min(memory_bytes, _WASM32_BYTES))
    ffi.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, _KEPT_RESIDENT_BYTES)
    ffi.wasmtime_pooling_allocation_config_table_keep_resident_set(pool, _KEPT_RESIDENT_BYTES)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)
