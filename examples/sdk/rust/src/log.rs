//! Lines in the agent's log.

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
}

/// Writes a line to the agent's log. Trace and debug are hidden there unless it is verbose.
#[cfg(target_arch = "wasm32")]
pub fn log(level: Level, text: &str) {
    mod sentinel {
        #[link(wasm_import_module = "sentinel")]
        extern "C" {
            pub fn log(level: i32, ptr: *const u8, len: usize);
        }
    }
    // SAFETY: the agent reads the text and keeps nothing of it.
    unsafe { sentinel::log(level as i32, text.as_ptr(), text.len()) }
}

/// There is no agent where a filter's tests run: its lines go to stderr.
#[cfg(not(target_arch = "wasm32"))]
pub fn log(level: Level, text: &str) {
    eprintln!("{level:?}: {text}");
}
