//! Filters for sentinel-wasm-agent. A whole one:
//!
//! ```
//! use sentinel_guest::{filter, Decision, Request};
//!
//! filter! { on_request_headers: decide }
//!
//! fn decide(request: Request) -> Decision {
//!     if request.uri.contains("/admin") {
//!         return Decision::block(403, "Forbidden").tags(&["admin"]);
//!     }
//!     Decision::allow()
//! }
//! # let request = Request { uri: "/admin".into(), ..Request::default() };
//! # assert_eq!(decide(request), Decision::block(403, "Forbidden").tags(&["admin"]));
//! ```
//!
//! An event that is not what the ABI says never reaches the function: it is answered with
//! [`Decision::bad_input`].

mod base64;
mod decision;
mod events;
mod findings;
mod frame;
pub mod hooks;
mod log;
pub mod memory;

pub use decision::{Data, Decision, List};
pub use events::{BodyChunk, Complete, Frame, Headers, Inspection, Request, Response};
pub use findings::{Detection, Findings, Severity, Span};
pub use frame::FrameDecision;
pub use log::{log, Level};

/// Exports hooks: `filter! { on_request_headers: decide, on_configure: configure }`. Each name is one
/// of [`hooks`], which says what its function gets and returns.
#[macro_export]
macro_rules! filter {
    ($($hook:ident: $function:expr),+ $(,)?) => {$(
        #[doc(hidden)]
        #[no_mangle]
        pub unsafe extern "C" fn $hook(ptr: *const u8, len: usize) -> u64 {
            // SAFETY: the agent calls with a buffer that it filled.
            unsafe { $crate::memory::call(ptr, len, |event| $crate::hooks::$hook(event, $function)) }
        }
    )+};
}
