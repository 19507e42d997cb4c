//! The guest's side of the ABI: what every filter needs, whatever it decides.
//!
//! One call goes like this. The agent asks [`alloc`] for room, writes the event there as JSON and
//! calls a hook with the address and the length. The hook's answer is JSON too; its address and
//! length come back packed into one integer. The agent gives the event's buffer back with
//! [`dealloc`], copies the answer out and gives that back too.
//!
//! A filter exports its hooks and leaves the rest to [`call`]; `alloc` and `dealloc` are exported
//! from here.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::slice;

pub use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Header names are in canonical form: `User-Agent`, `X-Forwarded-For`.
pub type Headers = BTreeMap<String, String>;

/// What `on_request_headers` gets.
#[derive(Deserialize)]
pub struct RequestHeaders {
    pub method: String,
    pub uri: String,
    pub client_ip: String,
    pub correlation_id: String,
    pub headers: Headers,
}

/// What `on_response_headers` gets.
#[derive(Deserialize)]
pub struct ResponseHeaders {
    pub status: u16,
    pub correlation_id: String,
    pub headers: Headers,
}

/// What `on_request_body` and `on_response_body` get.
#[derive(Deserialize)]
pub struct BodyChunk {
    pub correlation_id: String,
    pub chunk_index: u64,
    pub is_last: bool,
    /// None when the proxy does not know it.
    #[serde(deserialize_with = "nullable")]
    pub total_size: Option<u64>,
    pub bytes_seen: u64,
    /// What `data` is: `utf-8` (the text itself) or `base64`.
    pub encoding: String,
    pub data: String,
}

/// An `Option` that has to be there: by itself, serde takes a missing field for None.
fn nullable<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(input)
}

/// Lends the agent `size` bytes, or says with null that there is no memory left.
#[no_mangle]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // The allocator must not be asked for nothing, and null would mean "out of memory".
        Ok(_) if size == 0 => NonNull::dangling().as_ptr(),
        // SAFETY: the size is not zero.
        Ok(layout) => unsafe { std::alloc::alloc(layout) },
        Err(_) => ptr::null_mut(),
    }
}

/// Takes a buffer back.
///
/// # Safety
///
/// `ptr` and `size` are from one [`alloc`] or one answer of [`call`], and are given back once.
#[no_mangle]
pub unsafe extern "C" fn dealloc(ptr: *mut u8, size: usize) {
    if ptr.is_null() || size == 0 {
        return;
    }
    if let Ok(layout) = Layout::array::<u8>(size) {
        std::alloc::dealloc(ptr, layout);
    }
}

/// Runs one hook: reads the event at `ptr`, lets `filter` decide and returns where its answer is,
/// address in the upper half and length in the lower. The filter gets None when the event is not
/// what the ABI says: what to do then is its decision too, and a trap would cost the instance.
///
/// # Safety
///
/// `len` bytes at `ptr` are initialised and nobody else's, as they are when the agent calls a hook.
pub unsafe fn call<E: DeserializeOwned>(
    ptr: *const u8,
    len: usize,
    filter: impl FnOnce(Option<E>) -> Value,
) -> u64 {
    let event = parse(slice::from_raw_parts(ptr, len));
    let answer = filter(event).to_string().into_bytes();

    // From here on the answer is the agent's. A boxed slice has no spare capacity: its length is
    // all that `dealloc` needs to know.
    let answer = Box::leak(answer.into_boxed_slice());
    (answer.as_ptr() as u64) << 32 | answer.len() as u64
}

fn parse<E: DeserializeOwned>(input: &[u8]) -> Option<E> {
    // serde would take an array for a struct, its items in order of the fields.
    let first = input.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'{' {
        return None;
    }
    serde_json::from_slice(input).ok()
}
