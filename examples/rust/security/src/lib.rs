//! A security filter that uses every hook: attack patterns and scanners are turned away, bots
//! challenged, responses hardened, card numbers masked. `examples/cases.json` has what it answers
//! to what.
//!
//! This file is what the agent calls; `filter` decides and `text` knows the encodings.

// The condition is always the same: the agent calls with a buffer that it filled.
#![allow(clippy::missing_safety_doc)]

mod filter;
mod text;

use guest::{Answer, Deserialize};

#[no_mangle]
pub unsafe extern "C" fn on_request_headers(ptr: *const u8, len: usize) -> u64 {
    call(ptr, len, filter::request_headers)
}

#[no_mangle]
pub unsafe extern "C" fn on_request_body(ptr: *const u8, len: usize) -> u64 {
    call(ptr, len, filter::request_body)
}

#[no_mangle]
pub unsafe extern "C" fn on_response_headers(ptr: *const u8, len: usize) -> u64 {
    call(ptr, len, filter::response_headers)
}

#[no_mangle]
pub unsafe extern "C" fn on_response_body(ptr: *const u8, len: usize) -> u64 {
    call(ptr, len, filter::response_body)
}

unsafe fn call<'a, E: Deserialize<'a>>(
    ptr: *const u8,
    len: usize,
    filter: fn(E) -> Answer<'a>,
) -> u64 {
    guest::call(ptr, len, |event: Option<E>| {
        event.map_or_else(filter::bad_input, filter)
    })
}
