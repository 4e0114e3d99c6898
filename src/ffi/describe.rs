//! What a plan has to know of a model, told by llama.cpp itself: so every architecture is right without a list.

use std::ffi::{c_char, c_int, c_void, CString};
use std::path::Path;

use super::bindings::{LLAMA_ROPE_TYPE_NONE, LLAMA_ROPE_TYPE_NORM};
use crate::capi::cache::model_shape;
use crate::capi::types::ModelDesc;
use crate::shape::ModelShape;
use crate::transform::RopeOrder;

/// A model's shape, and the query heads of each of its layers.
#[derive(Clone, Debug)]
pub struct Described {
    pub shape: ModelShape,
    pub n_head: Vec<u32>,
    /// How the model lays out the pairs that RoPE rotates; none without RoPE.
    pub rope_order: Option<RopeOrder>,
}

extern "C" {
    fn pmkvq_describe_model(
        path: *const c_char,
        callback: unsafe extern "C" fn(*const ModelDesc, *mut c_void),
        user_data: *mut c_void,
        err: *mut c_char,
        n_err: usize,
    ) -> c_int;
}

unsafe extern "C" fn collect(model: *const ModelDesc, user_data: *mut c_void) {
    let found = &mut *user_data.cast::<Option<Result<Described, String>>>();
    let model = &*model;
    let layers = std::slice::from_raw_parts(model.layers, model.n_layers as usize);
    let n_head = layers.iter().map(|l| l.n_head).collect();
    let rope_order = match model.rope_type {
        LLAMA_ROPE_TYPE_NONE => None,
        LLAMA_ROPE_TYPE_NORM => Some(RopeOrder::Interleaved),
        _ => Some(RopeOrder::HalfSplit),
    };
    *found = Some(model_shape(model).map(|shape| Described { shape, n_head, rope_order }));
}

/// Reads the metadata of a GGUF, no weights.
///
/// # Errors
/// A message that names the file.
pub fn describe_model(path: &Path) -> Result<Described, String> {
    let text = path.to_str().and_then(|p| CString::new(p).ok());
    let text = text.ok_or_else(|| format!("{}: not a path that llama.cpp can open", path.display()))?;
    let mut found: Option<Result<Described, String>> = None;
    let mut err = [0u8; 1024];
    // SAFETY: the callback gets the pointer to `found` back, during the call only
    let status = unsafe {
        pmkvq_describe_model(text.as_ptr(), collect, (&raw mut found).cast(), err.as_mut_ptr().cast(), err.len())
    };
    match found {
        Some(result) if status == 0 => result,
        _ => {
            let end = err.iter().position(|b| *b == 0).unwrap_or(err.len());
            Err(String::from_utf8_lossy(&err[..end]).trim_end().to_string())
        }
    }
}
