//! What goes into the attention of a layer, seen while a graph is computed.

use std::ffi::{c_void, CStr};

use super::bindings as c;

/// Rows of one token after the other, `[n_token][n_head][head_dim]`, wherever they lie in the graph's memory.
#[derive(Clone, Copy)]
pub struct ObservedRows<'a> {
    tensor: &'a c::ggml_tensor,
}

impl ObservedRows<'_> {
    pub fn n_tokens(&self) -> usize {
        self.tensor.ne[2] as usize
    }

    /// The row of a token, `[n_head][head_dim]`.
    pub fn copy(&self, token: usize, out: &mut Vec<f32>) {
        let t = self.tensor;
        let (d, n_head) = (t.ne[0] as usize, t.ne[1] as usize);
        assert!(token < self.n_tokens(), "token {token} of {}", self.n_tokens());
        out.clear();
        for h in 0..n_head {
            // SAFETY: the node was just computed on the CPU, and its sources are as long as they say (values of a row are
            // contiguous f32: pmkvq_rows_f32 in llama/pmkvq-ops.cpp)
            unsafe {
                let row = t.data.cast::<u8>().add(token * t.nb[2] + h * t.nb[1]).cast::<f32>();
                out.extend_from_slice(std::slice::from_raw_parts(row, d));
            }
        }
    }
}

/// The operands of one layer's attention for one ubatch, K and V as they are stored, before rounding.
pub struct Attention<'a> {
    /// Index of the layer in the model.
    pub il: u32,
    pub q: ObservedRows<'a>,
    pub k: ObservedRows<'a>,
    pub v: ObservedRows<'a>,
}

/// Called for every attention over a progressive cache that stores K and V.
pub type Observer<'o> = Box<dyn FnMut(&Attention) + 'o>;

/// The attention node of a layer is named `pmkvq-<layer>` and has eight sources (`llama/pmkvq-ops.cpp`).
unsafe fn attention<'a>(node: *const c::ggml_tensor) -> Option<Attention<'a>> {
    let node = &*node;
    let name = CStr::from_ptr(node.name.as_ptr()).to_str().ok()?;
    let il = name.strip_prefix("pmkvq-")?.parse().ok()?;
    let source = |i: usize| node.src[i].as_ref().map(|tensor| ObservedRows { tensor });
    Some(Attention { il, q: source(0)?, k: source(6)?, v: source(7)? })
}

pub(super) unsafe extern "C" fn callback(node: *mut c::ggml_tensor, ask: bool, user_data: *mut c_void) -> bool {
    let Some(seen) = attention(node) else { return !ask };
    if !ask {
        let observer = &mut *user_data.cast::<Observer>();
        // nothing may unwind into llama.cpp
        let seen = std::panic::AssertUnwindSafe(|| observer(&seen));
        return std::panic::catch_unwind(seen).is_ok();
    }
    true
}
