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
use std::borrow::Cow;
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;
use std::str;

use serde::de::{MapAccess, Visitor};
pub use serde::Deserialize;
use serde::Deserializer;

mod answer;
pub use answer::Answer;

/// What `on_request_headers` gets. Text is borrowed from the event: copying each header takes longer
/// than most filters do.
#[derive(Deserialize)]
pub struct RequestHeaders<'a> {
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    #[serde(borrow)]
    pub uri: Cow<'a, str>,
    #[serde(borrow)]
    pub client_ip: Cow<'a, str>,
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// What `on_response_headers` gets.
#[derive(Deserialize)]
pub struct ResponseHeaders<'a> {
    pub status: u16,
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// Names are in canonical form: `User-Agent`, `X-Forwarded-For`.
pub struct Headers<'a>(Vec<(Text<'a>, Text<'a>)>);

impl Headers<'_> {
    /// The value of a header, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key.0 == name);
        found.map(|(_, value)| &*value.0)
    }
}

/// By itself, serde borrows text in a struct but copies it in a list.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers<'de>;

            fn expecting(&self, wanted: &mut fmt::Formatter) -> fmt::Result {
                wanted.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers<'de>, M::Error> {
                let mut pairs = Vec::with_capacity(16);
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Headers(pairs))
            }
        }

        input.deserialize_map(Pairs)
    }
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
pub unsafe fn call<'a, E: Deserialize<'a>>(
    ptr: *const u8,
    len: usize,
    filter: impl FnOnce(Option<E>) -> Answer<'a>,
) -> u64 {
    let event = parse(slice::from_raw_parts(ptr, len));
    // Not `to_string`, whose formatter takes as long as the rest. An Answer can always be written.
    let answer = serde_json::to_vec(&filter(event)).unwrap_or_default();

    // From here on the answer is the agent's. A boxed slice has no spare capacity: its length is
    // all that `dealloc` needs to know.
    let answer = Box::leak(answer.into_boxed_slice());
    (answer.as_ptr() as u64) << 32 | answer.len() as u64
}

fn parse<'a, E: Deserialize<'a>>(input: &'a [u8]) -> Option<E> {
    // serde would take an array for a struct, its items in order of the fields.
    let first = input.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'{' {
        return None;
    }
    // Looking once whether all of it is text takes less than looking at each string.
    serde_json::from_str(str::from_utf8(input).ok()?).ok()
}
