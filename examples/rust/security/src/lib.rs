//! A security filter of headers and bodies: attack patterns and scanners are turned away, bots
//! challenged, responses hardened, card numbers masked. `examples/cases.json` has what it answers
//! to what.
//!
//! `filter` decides and `text` knows what attacks and card numbers look like.

mod filter;
mod text;

sentinel_guest::filter! {
    on_request_headers: filter::request_headers,
    on_request_body: filter::request_body,
    on_response_headers: filter::response_headers,
    on_response_body: filter::response_body,
}
