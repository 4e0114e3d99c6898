//! The bytes of pages and parameters.
//!
//! ```text
//! pool     [kv_head][page]                      a page is 32 * D bytes; one page number serves all heads
//! block    subtile s at width w: in pages[s * w / 16], at byte (s % (16 / w)) * 2 * w * D, 2 * w * D bytes long
//! 16 bits  f16 [16 tokens][D]
//!
//! packed   codes are kept in quads: 4 dimensions of one key (K), 4 tokens of one dimension (V)
//!
//!          K   row of 64 bytes      = 16 keys x 4 dims:     k0d0 k0d1 k0d2 k0d3 k1d0 ... k15d3
//!              quad u               = dims 4u .. 4u+3                          D/4 quads
//!          V   row of 4 * D bytes   = D dims x 4 tokens:    d0t0 d0t1 d0t2 d0t3 d1t0 ...
//!              quad u               = tokens 4u .. 4u+3                        4 quads
//!
//!          8 bits   row r           = quad r
//!          4 bits   row r, low bits = quad 2r, high bits = quad 2r+1
//!          2 bits   row r, bits 2c  = quad 4r+c, c = 0..3
//!
//! params   f16 [block][kv_head][group][min | max][128 tokens]
//! ```
//!
//! A row is what a dot-product instruction takes whole: sixteen 32-bit lanes, each four codes to be multiplied by four bytes
//! of q (K) or of softmax weights (V). Narrowing joins whole rows byte by byte, the same way for K and V.

use crate::geometry::{Side, Width, BLOCK, SUBTILE};

/// Bytes of a row of quads.
pub const fn row_bytes(side: Side, head_dim: usize) -> usize {
    match side {
        Side::K => 4 * SUBTILE,
        Side::V => 4 * head_dim,
    }
}

/// Quads along the packed direction of a subtile: `D / 4` for K, 4 for V.
pub const fn quads(side: Side, head_dim: usize) -> usize {
    match side {
        Side::K => head_dim / 4,
        Side::V => SUBTILE / 4,
    }
}

/// Where the code of a token (0..16 in its subtile) and dimension lies in a packed subtile: byte, and lowest bit in it.
pub const fn code_position(side: Side, width: Width, head_dim: usize, token: usize, dim: usize) -> (usize, u32) {
    let (quad, in_row) = match side {
        Side::K => (dim / 4, token * 4 + dim % 4),
        Side::V => (token / 4, dim * 4 + token % 4),
    };
    let per_byte = 8 / width.bits();
    let byte = quad / per_byte * row_bytes(side, head_dim) + in_row;
    (byte, (quad % per_byte * width.bits()) as u32)
}

/// Where a subtile of a block lies: the slot in the block's list of pages, and the byte in that page.
pub const fn subtile_position(width: Width, head_dim: usize, subtile: usize) -> (usize, usize) {
    let per_page = width.subtiles_per_page();
    (subtile / per_page, subtile % per_page * width.subtile_bytes(head_dim))
}

/// Index (in f16 values) of the minimum of a block, head, group and token; the maximum is [`BLOCK`] values later.
pub const fn param_index(
    n_head_kv: usize,
    n_groups: usize,
    block: usize,
    head: usize,
    group: usize,
    token: usize,
) -> usize {
    (((block * n_head_kv + head) * n_groups + group) * 2) * BLOCK + token
}
