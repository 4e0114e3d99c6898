//! C strings in and out.

use std::ffi::{c_char, c_int, CStr};

/// A C string, or `None` for a null pointer.
///
/// # Errors
/// Names `what` if the text is not UTF-8.
///
/// # Safety
/// `ptr` is null or a terminated string that lives for `'a`.
pub unsafe fn read<'a>(ptr: *const c_char, what: &str) -> Result<Option<&'a str>, String> {
    if ptr.is_null() {
        return Ok(None);
    }
    match CStr::from_ptr(ptr).to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("{what} is not UTF-8 text")),
    }
}

/// Copies as much of `text` as fits, terminated. Returns the length of the whole text in bytes.
///
/// # Safety
/// `buf` is null or writable for `n` bytes.
pub unsafe fn write(text: &str, buf: *mut c_char, n: usize) -> usize {
    if !buf.is_null() && n > 0 {
        let mut len = text.len().min(n - 1);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), len);
        *buf.add(len) = 0;
    }
    text.len()
}

/// 0, or the message of the error and [`super::FAILED`]; a panic is an error too.
///
/// # Safety
/// `err` is null or writable for `n_err` bytes.
pub unsafe fn report(err: *mut c_char, n_err: usize, f: impl FnOnce() -> Result<(), String>) -> c_int {
    let result = super::guard(Err("internal error (please report it)".to_string()), f);
    match result {
        Ok(()) => 0,
        Err(message) => {
            write(&message, err, n_err);
            super::FAILED
        }
    }
}
