"""Holds the C API's function pointers; see _wasmtime.pxd."""

from libc.stdint cimport uintptr_t

NAMES = (
    "wasmtime_func_call_unchecked",
    "wasmtime_memory_data",
    "wasmtime_memory_data_size",
    "wasmtime_error_message",
    "wasmtime_error_delete",
    "wasm_trap_message",
    "wasmtime_trap_code",
    "wasm_trap_delete",
    "wasm_byte_vec_delete",
    "wasmtime_trap_new",
    "wasmtime_caller_context",
    "wasmtime_caller_export_get",
    "wasmtime_context_get_data",
    "wasmtime_context_set_epoch_deadline",
    "wasmtime_engine_clone",
    "wasm_engine_delete",
    "wasmtime_engine_increment_epoch",
    "wasmtime_store_new",
    "wasmtime_store_context",
    "wasmtime_store_delete",
    "wasmtime_store_limiter",
    "wasi_config_new",
    "wasmtime_context_set_wasi",
    "wasmtime_instance_pre_instantiate",
    "wasmtime_instance_export_get",
)

# wasmtime-py's name of each struct this package reads or writes, and the size it has here (bytes).
SIZES = {
    "wasm_byte_vec_t": sizeof(wasm_byte_vec_t),
    "wasmtime_func": sizeof(wasmtime_func_t),
    "wasmtime_memory": sizeof(wasmtime_memory_t),
    "wasmtime_extern": sizeof(wasmtime_extern_t),
    "wasmtime_instance": sizeof(wasmtime_instance_t),
    "wasmtime_val_raw": sizeof(wasmtime_val_raw_t),
}


def bind(addresses: tuple[int, ...]) -> None:
    """Take the address of each function of `NAMES`, in that order."""
    cdef uintptr_t* slots = <uintptr_t*>&api
    if len(addresses) != len(NAMES) or sizeof(Api) != len(NAMES) * sizeof(void*):
        raise SystemError("Api and NAMES differ")
    for index, address in enumerate(addresses):
        slots[index] = address
