//! What llama.cpp logs, kept.

use pmkvq::ffi::bindings;
use std::ffi::{c_char, c_void, CStr};
use std::sync::{Mutex, MutexGuard};

static LOG: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" fn keep(_: bindings::ggml_log_level, text: *const c_char, _: *mut c_void) {
    LOG.lock().unwrap().push_str(&CStr::from_ptr(text).to_string_lossy());
}

/// From now on; after a model was loaded, which sets its own.
pub fn collect() {
    // SAFETY: the callback is a function
    unsafe { bindings::llama_log_set(Some(keep), std::ptr::null_mut()) };
}

/// All of it since it was cleared.
pub fn collected() -> MutexGuard<'static, String> {
    LOG.lock().unwrap()
}
