//! The ABI without an SDK, at its smallest: every response gets a header and loses another. It need not
//! read the event for that; a filter that must wants a JSON parser, as `sentinel-guest` has one.

const RESULT: &str = r#"{"decision":"allow","add_response_headers":{"X-Frame-Options":"DENY"},"remove_response_headers":["Server"]}"#;

/// The agent asks for room, writes the event there and calls the hook. It always asks for some.
#[no_mangle]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    Box::leak(vec![0; size].into_boxed_slice()).as_mut_ptr()
}

/// Then it gives back the event's buffer and, when it has copied it, the result's.
///
/// # Safety
///
/// `size` bytes at `ptr` are from `alloc` or a hook, and are given back once.
#[no_mangle]
pub unsafe extern "C" fn dealloc(ptr: *mut u8, size: usize) {
    drop(Vec::from_raw_parts(ptr, size, size));
}

/// Where the result is: the address in the upper half, the length in the lower.
#[no_mangle]
pub extern "C" fn on_response_headers(_event: *const u8, _len: usize) -> u64 {
    let result = Box::leak(Box::<str>::from(RESULT));
    (result.as_ptr() as u64) << 32 | result.len() as u64
}
