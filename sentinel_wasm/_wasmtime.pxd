"""The part of wasmtime's C API (wasmtime.h, wasm.h) that this package calls, as function pointers.

`sentinel_wasm.guest.capi` takes them from wasmtime-py's own shared library, so that both sides work on the
same engines and stores. Layouts are compared with wasmtime-py's at import.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

ctypedef struct wasm_byte_vec_t:
    size_t size
    char* data

ctypedef struct wasmtime_func_t:
    uint64_t store_id
    void* private1

ctypedef struct memory_head_t:
    uint64_t store_id
    uint32_t private1

ctypedef struct wasmtime_memory_t:
    memory_head_t head
    uint32_t private2

ctypedef struct wasmtime_instance_t:
    uint64_t store_id
    size_t private1

ctypedef union wasmtime_extern_union_t:
    wasmtime_func_t func
    wasmtime_memory_t memory
    uint8_t size_of_the_others[24]

ctypedef struct wasmtime_extern_t:
    uint8_t kind
    wasmtime_extern_union_t of

ctypedef union wasmtime_val_raw_t:
    int32_t i32
    int64_t i64
    double f64
    uint8_t v128[16]

cdef enum:
    WASMTIME_EXTERN_FUNC = 0
    WASMTIME_EXTERN_MEMORY = 3

ctypedef void wasmtime_context_t
ctypedef void wasmtime_caller_t
ctypedef void wasmtime_error_t
ctypedef void wasm_trap_t

ctypedef wasm_trap_t* (*callback_t)(
    void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil

ctypedef struct Api:
    wasmtime_error_t* (*wasmtime_func_call_unchecked)(
        wasmtime_context_t*, const wasmtime_func_t*, wasmtime_val_raw_t*, size_t,
        wasm_trap_t**) noexcept nogil
    char* (*wasmtime_memory_data)(
        const wasmtime_context_t*, const wasmtime_memory_t*) noexcept nogil
    size_t (*wasmtime_memory_data_size)(const wasmtime_context_t*, const wasmtime_memory_t*) noexcept nogil
    void (*wasmtime_error_message)(const wasmtime_error_t*, wasm_byte_vec_t*) noexcept nogil
    void (*wasmtime_error_delete)(wasmtime_error_t*) noexcept nogil
    void (*wasm_trap_message)(const wasm_trap_t*, wasm_byte_vec_t*) noexcept nogil
    uint8_t (*wasmtime_trap_code)(const wasm_trap_t*, uint8_t*) noexcept nogil
    void (*wasm_trap_delete)(wasm_trap_t*) noexcept nogil
    void (*wasm_byte_vec_delete)(wasm_byte_vec_t*) noexcept nogil
    wasm_trap_t* (*wasmtime_trap_new)(const char*, size_t) noexcept nogil
    wasmtime_context_t* (*wasmtime_caller_context)(wasmtime_caller_t*) noexcept nogil
    uint8_t (*wasmtime_caller_export_get)(
        wasmtime_caller_t*, const char*, size_t, wasmtime_extern_t*) noexcept nogil
    void* (*wasmtime_context_get_data)(const wasmtime_context_t*) noexcept nogil
    void (*wasmtime_context_set_epoch_deadline)(wasmtime_context_t*, uint64_t) noexcept nogil
    void* (*wasmtime_engine_clone)(void*) noexcept nogil
    void (*wasm_engine_delete)(void*) noexcept nogil
    void (*wasmtime_engine_increment_epoch)(void*) noexcept nogil
    void* (*wasmtime_store_new)(void*, void*, void*) noexcept nogil
    wasmtime_context_t* (*wasmtime_store_context)(void*) noexcept nogil
    void (*wasmtime_store_delete)(void*) noexcept nogil
    void (*wasmtime_store_limiter)(void*, int64_t, int64_t, int64_t, int64_t, int64_t) noexcept nogil
    void* (*wasi_config_new)() noexcept nogil
    wasmtime_error_t* (*wasmtime_context_set_wasi)(wasmtime_context_t*, void*) noexcept nogil
    wasmtime_error_t* (*wasmtime_instance_pre_instantiate)(
        const void*, wasmtime_context_t*, wasmtime_instance_t*, wasm_trap_t**) noexcept nogil
    uint8_t (*wasmtime_instance_export_get)(
        wasmtime_context_t*, const wasmtime_instance_t*, const char*, size_t,
        wasmtime_extern_t*) noexcept nogil

cdef Api api
