//! f16 and back, one value at a time.

use super::codes::saturate;

/// The one NaN that is stored.
pub const NAN: u16 = 0x7e00;

/// Rounded half to even, saturated at +-65504; NaN becomes [`NAN`].
pub fn from_f32(x: f32) -> u16 {
    if x.is_nan() {
        NAN
    } else {
        half::f16::from_f32(saturate(x)).to_bits()
    }
}

pub fn to_f32(h: u16) -> f32 {
    half::f16::from_bits(h).to_f32()
}
