//! The backends that were linked, and the devices that they found.

use std::ffi::{c_char, c_void, CStr};

use super::bindings::llama_log_set;
use super::session::only_errors;

/// One device of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As `--device` takes it: `CUDA0`.
    pub name: String,
    pub description: String,
    /// Bytes of memory in all, 0 where the backend does not know.
    pub memory: u64,
    /// It only helps the CPU: no layer can be on it.
    pub accelerator: bool,
    /// It has the operations of the progressive KV cache; else the cache of its layers is on the CPU.
    pub operations: bool,
}

/// One backend of ggml; a GPU's has no device where there is no usable GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: String,
    pub devices: Vec<Device>,
}

/// A device as C tells it: `pmkvq_backend_device` of `llama/pmkvq-backends.h`
#[repr(C)]
struct BackendDevice {
    backend: *const c_char,
    name: *const c_char,
    description: *const c_char,
    memory: u64,
    accelerator: u8,
    operations: u8,
}

extern "C" {
    fn pmkvq_describe_devices(
        callback: unsafe extern "C" fn(*const BackendDevice, *mut c_void),
        user_data: *mut c_void,
    );
}

/// # Safety
/// A string of ggml's.
unsafe fn text(of: *const c_char) -> String {
    CStr::from_ptr(of).to_string_lossy().into_owned()
}

unsafe extern "C" fn collect(device: *const BackendDevice, user_data: *mut c_void) {
    let found = &mut *user_data.cast::<Vec<Backend>>();
    let device = &*device;
    let backend = text(device.backend);
    if found.last().is_none_or(|last| last.name != backend) {
        found.push(Backend { name: backend, devices: Vec::new() });
    }
    if let (Some(last), false) = (found.last_mut(), device.name.is_null()) {
        last.devices.push(Device {
            name: text(device.name),
            description: text(device.description).trim().to_string(),
            memory: device.memory,
            accelerator: device.accelerator != 0,
            operations: device.operations != 0,
        });
    }
}

/// What llama.cpp can run on here, in ggml's order.
pub fn backends() -> Vec<Backend> {
    let mut found: Vec<Backend> = Vec::new();
    // SAFETY: the callback gets the pointer to `found` back, during the call only
    unsafe {
        // a backend that is asked for the first time tells of its devices, too
        llama_log_set(Some(only_errors), std::ptr::null_mut());
        pmkvq_describe_devices(collect, (&raw mut found).cast());
    }
    found
}
