//! The agent's side of a call: buffers that it asks for and gives back, and addresses packed into an
//! integer. `filter!` uses this; a filter has no need to.

use std::alloc::Layout;
use std::ptr::{self, NonNull};
use std::slice;

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
/// `ptr` and `size` are from one [`alloc`] or one result of [`call`], and are given back once.
#[no_mangle]
pub unsafe extern "C" fn dealloc(ptr: *mut u8, size: usize) {
    if ptr.is_null() || size == 0 {
        return;
    }
    if let Ok(layout) = Layout::array::<u8>(size) {
        std::alloc::dealloc(ptr, layout);
    }
}

/// Runs one hook on the event at `ptr` and returns where its result is: address in the upper half,
/// length in the lower.
///
/// # Safety
///
/// `len` bytes at `ptr` are initialised and nobody else's, as they are when the agent calls a hook.
pub unsafe fn call<'a>(ptr: *const u8, len: usize, hook: impl FnOnce(&'a [u8]) -> Vec<u8>) -> u64 {
    let result = hook(slice::from_raw_parts(ptr, len));
    // From here on the result is the agent's. A boxed slice has no spare capacity: its length is all
    // that `dealloc` needs to know.
    let result = Box::leak(result.into_boxed_slice());
    pack(result.as_ptr() as usize, result.len())
}

fn pack(address: usize, len: usize) -> u64 {
    (address as u64) << 32 | len as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_length_share_one_integer() {
        assert_eq!(pack(0x8000_0010, 0x9000_0001), 0x8000_0010_9000_0001);
    }

    #[test]
    fn buffers_are_lent_and_taken_back() {
        let buffer = alloc(5);
        // SAFETY: five bytes are ours until they are given back.
        unsafe {
            ptr::copy_nonoverlapping(b"hello".as_ptr(), buffer, 5);
            assert_eq!(slice::from_raw_parts(buffer, 5), b"hello");
            dealloc(buffer, 5);
        }
    }

    #[test]
    fn nothing_is_lent_too_but_more_than_there_is_is_not() {
        let nothing = alloc(0);
        assert!(!nothing.is_null());
        assert!(alloc(usize::MAX).is_null());
        // SAFETY: what alloc has given out, and null.
        unsafe {
            dealloc(nothing, 0);
            dealloc(ptr::null_mut(), 5);
        }
    }

    #[test]
    fn a_call_hands_the_event_to_the_hook_and_its_result_over() {
        // SAFETY: a constant. The address does not fit on this machine, the length does.
        let result = unsafe { call(b"event".as_ptr(), 5, |event| [event, b"!"].concat()) };
        assert_eq!(result as u32, 6);
    }
}
