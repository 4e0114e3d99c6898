//! f16 values become 8-bit codes and (min, max), up to 16 tokens at a time.
//!
//! The numbers are those of [`super::codes`]. Extremes are found on the bits of the values, as integers, which also says
//! whether there is a NaN or an infinity among them; where there is none, nothing has to be held to a range later. A quotient
//! by the group's scale is a multiplication.

use super::fit::fit4;
use super::lanes::{Lanes, LANES};
use super::level::{ordered, Level, INFINITY, SIGN};
use super::pack;
use super::prefetch::lines;
use super::words::Words;
use super::{RangeRule, SideView};
use crate::geometry::{Side, Width, BLOCK, MAX_GROUP, SUBTILE};
use std::mem::MaybeUninit;

/// 8-bit codes of `n` tokens, token `t` at `codes + t * stride`, its values at `halves + t * head_dim`; (min, max) of each
/// group go to `params`, which is the place of the first token in the minimum plane of group 0.
///
/// # Safety
/// A token has `head_dim` values, a multiple of `group`, itself one of 16; `n` is 1 to 16; `codes` takes `head_dim` bytes of
/// each token; `params` reaches `2 * BLOCK` values further for each group.
#[inline(always)]
pub(crate) unsafe fn quantize<L: Level>(
    halves: *const u16,
    n: usize,
    head_dim: usize,
    group: usize,
    params: *mut u16,
    codes: *mut u8,
    stride: usize,
) {
    for at in (0..head_dim).step_by(group) {
        let plane = params.add(at / group * 2 * BLOCK);
        let (halves, codes) = (halves.add(at), codes.add(at));
        let token = |t: usize| std::slice::from_raw_parts(halves.add(t * head_dim), group);
        if n == 1 {
            let Extremes { min, max, special } = Extremes::of::<L>(token(0));
            *plane = min;
            *plane.add(BLOCK) = max;
            let scale = Scale::<L>::new([min; SUBTILE].as_ptr(), [max; SUBTILE].as_ptr());
            write(halves, group, &scale, special, codes);
            continue;
        }
        let (mut min, mut max, mut special) = ([0; SUBTILE], [0; SUBTILE], [false; SUBTILE]);
        for t in 0..n {
            let e = Extremes::of::<L>(token(t));
            (min[t], max[t], special[t]) = (e.min, e.max, e.special);
        }
        std::ptr::copy_nonoverlapping(min.as_ptr(), plane, n);
        std::ptr::copy_nonoverlapping(max.as_ptr(), plane.add(BLOCK), n);
        let scales = Scale::<L>::new(min.as_ptr(), max.as_ptr()).by_token();
        for t in 0..n {
            let scale = scales.of::<L>(t);
            write(halves.add(t * head_dim), group, &scale, special[t], codes.add(t * stride));
        }
    }
}

/// A subtile of sixteen tokens of f16 becomes one at a narrower width, by way of `at4` where ranges are fitted.
///
/// # Safety
/// As [`quantize_subtile`], with a side's own shape; `at4` takes a subtile at 4 bits.
#[inline(always)]
pub(crate) unsafe fn subtile<L: Level, V: Words>(
    view: &SideView,
    halves: *const u16,
    params: *mut u16,
    to: Width,
    at4: *mut u8,
    dst: *mut u8,
    ahead: *const u8,
) {
    let (side, d, group) = (view.side(), view.head_dim(), view.group());
    match (to, view.range_rule()) {
        (Width::B8, _) => quantize_subtile::<L, V, 8>(side, halves, d, group, params, dst, ahead),
        (Width::B2, RangeRule::Shift) => quantize_subtile::<L, V, 2>(side, halves, d, group, params, dst, ahead),
        (Width::B2, RangeRule::Fit) => {
            quantize_subtile::<L, V, 4>(side, halves, d, group, params, at4, ahead);
            fit4::<L, V>(side, at4, d, group, params, 0, SUBTILE, dst);
        }
        _ => quantize_subtile::<L, V, 4>(side, halves, d, group, params, dst, ahead),
    }
}

/// Codes of a group of sixteen tokens.
#[repr(C, align(64))]
struct Turns([u8; SUBTILE * MAX_GROUP]);

/// A subtile of sixteen tokens of f16 becomes one at `W` bits, and (min, max) of its groups go to `params`, as in [`quantize`].
/// As many bytes at `ahead` are asked for on the way.
///
/// # Safety
/// `halves` holds 16 rows of `head_dim` values, a multiple of `group`, itself one of 16; `dst` takes the subtile and is apart
/// from `halves`; `params` is as in [`quantize`].
#[inline(always)]
unsafe fn quantize_subtile<L: Level, V: Words, const W: usize>(
    side: Side,
    halves: *const u16,
    head_dim: usize,
    group: usize,
    params: *mut u16,
    dst: *mut u8,
    ahead: *const u8,
) {
    // codes of a group, four tokens in turn
    let mut turns = MaybeUninit::<Turns>::uninit();
    let turns = turns.as_mut_ptr().cast::<u8>();
    for at in (0..head_dim).step_by(group) {
        let plane = params.add(at / group * 2 * BLOCK);
        let special = L::extremes_of_rows(halves.add(at), head_dim, group, plane, plane.add(BLOCK));
        if special {
            for t in 0..SUBTILE {
                let e = Extremes::of::<L>(std::slice::from_raw_parts(halves.add(t * head_dim + at), group));
                (*plane.add(t), *plane.add(BLOCK + t)) = (e.min, e.max);
            }
        }
        let scales = Scale::<L>::new(plane, plane.add(BLOCK)).by_token();
        if !L::FUSED {
            // plain code has no registers for four tokens
            for t in 0..SUBTILE {
                let codes = turns.add(t * MAX_GROUP);
                write(halves.add(t * head_dim + at), group, &scales.of::<L>(t), special, codes);
            }
            pack::rows::<V, W>(side, turns, group, head_dim, at, dst);
            continue;
        }
        for t in (0..SUBTILE).step_by(4) {
            lines(ahead.wrapping_add(2 * (4 * at + t * group)), 8 * group);
            let (halves, out) = (halves.add(t * head_dim + at), turns.add(t * group));
            let scales = [scales.of::<L>(t), scales.of::<L>(t + 1), scales.of::<L>(t + 2), scales.of::<L>(t + 3)];
            if special {
                write4::<L, true>(halves, head_dim, group, &scales, out);
            } else {
                write4::<L, false>(halves, head_dim, group, &scales, out);
            }
        }
        for d in (0..group).step_by(LANES) {
            let mut quads = [V::splat(0); 4];
            for (i, quad) in quads.iter_mut().enumerate() {
                *quad = V::load(turns.add(4 * (i * group + d)));
            }
            pack::columns::<V, W>(side, quads, head_dim, at + d, dst);
        }
    }
}

/// The codes of a group of four tokens: four of each of them in turn.
#[inline(always)]
unsafe fn write4<L: Level, const SPECIAL: bool>(
    halves: *const u16,
    head_dim: usize,
    group: usize,
    scales: &[Scale<L>; 4],
    out: *mut u8,
) {
    for d in (0..group).step_by(LANES) {
        let p = halves.add(d);
        let (a, b) = (scaled::<L, SPECIAL>(p, &scales[0]), scaled::<L, SPECIAL>(p.add(head_dim), &scales[1]));
        let p = p.add(2 * head_dim);
        let (c, d4) = (scaled::<L, SPECIAL>(p, &scales[2]), scaled::<L, SPECIAL>(p.add(head_dim), &scales[3]));
        L::store_turns4([a, b, c, d4], out.add(4 * d));
    }
}

const LARGEST: u16 = 0x7bff;

/// (min, max) of a group, in f16, as [`super::codes::range`] has them.
struct Extremes {
    min: u16,
    max: u16,
    /// There is a NaN or an infinity among the values.
    special: bool,
}

impl Extremes {
    /// # Safety
    /// The CPU has the level; `group` is 16 values or a multiple.
    #[inline(always)]
    unsafe fn of<L: Level>(group: &[u16]) -> Extremes {
        let (low, high) = L::extremes(group.as_ptr(), group.len());
        let (least, most) = (ordered(SIGN | INFINITY), ordered(INFINITY));
        let special = low <= least || high >= most;
        let (low, high) = if special { Self::of_numbers(group) } else { (low, high) };
        // -0 becomes +0
        let positive = |h: u16| if h == SIGN { 0 } else { h };
        Extremes { min: positive(ordered(low as u16) as u16), max: positive(ordered(high as u16) as u16), special }
    }

    /// Without NaN, infinities as the largest f16.
    #[inline(never)]
    fn of_numbers(group: &[u16]) -> (i16, i16) {
        let (mut low, mut high) = (i16::MAX, i16::MIN);
        for &h in group {
            let held = ordered(h).clamp(ordered(SIGN | LARGEST), ordered(LARGEST));
            let nan = h & !SIGN > INFINITY;
            low = low.min(if nan { i16::MAX } else { held });
            high = high.max(if nan { i16::MIN } else { held });
        }
        if low > high {
            (0, 0)
        } else {
            (low, high)
        }
    }
}

/// What codes are made with: the minimum of a group, `max - min`, a 255th of that, and its inverse; in each lane one of a
/// token, or in all the same one.
struct Scale<L> {
    min: L,
    range: L,
    step: L,
    inverse: L,
    rest: L,
}

impl<L: Level> Scale<L> {
    #[inline(always)]
    unsafe fn new(min: *const u16, max: *const u16) -> Self {
        let (min, max) = (L::load_f16(min), L::load_f16(max));
        let range = max.sub(min);
        // a constant group has codes 0, whatever it is divided by
        let step = L::splat(0.0).select_lt(range, range.div(L::splat(255.0)), L::splat(1.0));
        let inverse = L::splat(1.0).div(step);
        Scale { min, range, step, inverse, rest: L::rest(step, inverse) }
    }

    #[inline(always)]
    unsafe fn by_token(self) -> ByToken {
        let (min, range, step) = (lanes(self.min), lanes(self.range), lanes(self.step));
        ByToken { min, range, step, inverse: lanes(self.inverse), rest: lanes(self.rest) }
    }
}

/// [`Scale`]s of sixteen tokens.
struct ByToken {
    min: [f32; SUBTILE],
    range: [f32; SUBTILE],
    step: [f32; SUBTILE],
    inverse: [f32; SUBTILE],
    rest: [f32; SUBTILE],
}

impl ByToken {
    /// That of one token, in all lanes.
    #[inline(always)]
    unsafe fn of<L: Level>(&self, t: usize) -> Scale<L> {
        Scale {
            min: L::splat(self.min[t]),
            range: L::splat(self.range[t]),
            step: L::splat(self.step[t]),
            inverse: L::splat(self.inverse[t]),
            rest: L::splat(self.rest[t]),
        }
    }
}

/// The codes of a group.
#[inline(always)]
unsafe fn write<L: Level>(halves: *const u16, group: usize, scale: &Scale<L>, special: bool, out: *mut u8) {
    if special {
        write_as::<L, true>(halves, group, scale, out)
    } else {
        write_as::<L, false>(halves, group, scale, out)
    }
}

#[inline(always)]
unsafe fn write_as<L: Level, const SPECIAL: bool>(halves: *const u16, group: usize, scale: &Scale<L>, out: *mut u8) {
    let whole = group / (4 * LANES) * (4 * LANES);
    for i in (0..whole).step_by(4 * LANES) {
        let p = halves.add(i);
        let (a, b) = (scaled::<L, SPECIAL>(p, scale), scaled::<L, SPECIAL>(p.add(LANES), scale));
        let (c, d) = (scaled::<L, SPECIAL>(p.add(2 * LANES), scale), scaled::<L, SPECIAL>(p.add(3 * LANES), scale));
        L::store_rounded4([a, b, c, d], out.add(i));
    }
    for i in (whole..group).step_by(LANES) {
        scaled::<L, SPECIAL>(halves.add(i), scale).store_rounded(out.add(i));
    }
}

#[inline(always)]
unsafe fn scaled<L: Level, const SPECIAL: bool>(halves: *const u16, scale: &Scale<L>) -> L {
    let mut x = L::load_f16(halves).sub(scale.min);
    if SPECIAL {
        // NaN becomes 0 at the first, infinity the largest f16 at the second
        x = x.max(L::splat(0.0)).min(scale.range);
    }
    x.quotient(scale.step, scale.inverse, scale.rest)
}

#[inline(always)]
unsafe fn lanes<L: Lanes>(x: L) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    x.store(out.as_mut_ptr());
    out
}

#[cfg(test)]
mod tests {
    /// The quotient that is multiplied out and the one that is divided round to the same code.
    ///
    /// Both depend on the significands of x and of the step alone, but for the place of the binary point: no product here
    /// leaves the range of f32. Away from a border between two codes neither can miss, each being off by less than two units
    /// in its last place; so all significands of the step with all 255 borders are tried at the values next to the border.
    fn check(every: usize) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn run(every: usize) -> u64 {
            let mut differ = 0;
            // the last one is the hardest
            for bits in (0..1 << 23).step_by(every).chain([(1 << 23) - 1]) {
                let step = f32::from_bits(127 << 23 | bits);
                let inverse = 1.0 / step;
                let rest = (-inverse).mul_add(step, 1.0) / step;
                let mut differs = 0u32;
                for k in 0..255u32 {
                    let border = ((k as f32 + 0.5) * step).to_bits();
                    for off in 0..16 {
                        let x = f32::from_bits(border + off - 8);
                        let fast = x.mul_add(inverse, x * rest);
                        // round half to even: the sum's last place is 1
                        let (a, b) = (fast + 12582912.0, x / step + 12582912.0);
                        differs += u32::from(a != b);
                    }
                }
                differ += u64::from(differs);
            }
            differ
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has both
            assert_eq!(unsafe { run(every) }, 0);
        }
    }

    #[test]
    fn quotients_round_to_the_same_codes() {
        check(509);
    }

    /// A minute or two: `cargo test --release --no-default-features --lib quotients -- --ignored`.
    #[test]
    #[ignore = "all 2^23 significands take a while"]
    fn all_quotients_round_to_the_same_codes() {
        check(1);
    }
}
