//! Turns scripts in request bodies away, and masks a word in response bodies. Each chunk is looked at by itself: what a chunk's
//! end cuts in two is not seen.

use sentinel_guest::{filter, BodyChunk, Decision, Request};

filter! {
    on_request_headers: on_request,
    on_request_body: inspect,
    on_response_body: mask,
}

fn on_request(_request: Request) -> Decision {
    Decision::allow()
}

fn inspect(chunk: BodyChunk) -> Decision {
    let body = String::from_utf8_lossy(chunk.bytes()).to_ascii_lowercase();
    if body.contains("<script") {
        return Decision::block(403, "Forbidden").tags(&["body-attack"]);
    }
    Decision::allow()
}

fn mask(chunk: BodyChunk) -> Decision {
    match chunk.text() {
        Some(text) if text.contains("secret") => Decision::allow()
            .replace_response_body(chunk.chunk_index, text.replace("secret", "******"))
            .tags(&["masked"]),
        _ => Decision::allow(),
    }
}
