//! The step to 2 bits with a new range for each group.
//!
//! The paper keeps a group's (min, max) through every shrink, so that the codes only shift. At 2 bits that grid is far from
//! the best: of 128 values of a normal distribution the extremes lie 5.2 standard deviations apart, so the four levels are
//! 1.7 apart, where 1.0 gives the least squared error. Under the rule [`RangeRule::Fit`] a group that goes to 2 bits takes
//! the range of least squared error among those whose ends lie on the grid of its 4-bit codes. The new codes and (min, max)
//! are functions of the 4-bit codes and their (min, max) alone, so it is the same whichever way a block came to 2 bits, and
//! the choice is made in integers.

use super::codes;
use crate::geometry::Width;

/// What the step to 2 bits does with a group's (min, max).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeRule {
    /// They stay: the paper's Equivalent Right Shift.
    #[default]
    Shift,
    /// The range of least squared error.
    Fit,
}

impl RangeRule {
    pub const ALL: [RangeRule; 2] = [RangeRule::Shift, RangeRule::Fit];

    /// As files and flags have it.
    pub const fn name(self) -> &'static str {
        match self {
            RangeRule::Shift => "shift",
            RangeRule::Fit => "fit",
        }
    }

    pub fn from_name(name: &str) -> Option<RangeRule> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// Ends of the ranges that are tried, in 4-bit codes.
pub(crate) const LOW: usize = 7; // 0 ..= 6
pub(crate) const HIGH: usize = 7; // 15 ..= 9

/// Ranges that are tried, and that many lanes' worth of zeros behind them.
pub(crate) const RANGES: usize = LOW * HIGH;
const PADDED: usize = RANGES.next_multiple_of(16);

/// Range `i`: widest first, so that of equal ones the widest is taken.
pub(crate) const fn ends(i: usize) -> (u8, u8) {
    ((i / HIGH) as u8, (15 - i % HIGH) as u8)
}

/// The 2-bit code of 4-bit code `c` in the range `low ..= high`: the nearest of four levels, of equally near ones the
/// higher.
pub const fn code2(c: u8, low: u8, high: u8) -> u8 {
    if c <= low {
        return 0;
    }
    // round(3 * (c - low) / (high - low)), halves up
    let (num, den) = (3 * (c - low) as u32, (high - low) as u32);
    let code = (2 * num + den) / (2 * den);
    if code > 3 {
        3
    } else {
        code as u8
    }
}

/// Squared errors of every 4-bit code in every range, in ninths of a squared step of the 4-bit grid.
static ERRORS: [[u32; PADDED]; 16] = {
    let mut errors = [[0; PADDED]; 16];
    let mut c = 0;
    while c < 16 {
        let mut i = 0;
        while i < RANGES {
            let (low, high) = ends(i);
            let level = code2(c as u8, low, high) as i32 * (high - low) as i32;
            let error = 3 * (c as i32 - low as i32) - level;
            errors[c][i] = (error * error) as u32;
            i += 1;
        }
        c += 1;
    }
    errors
};

/// The 2-bit codes of every range.
static CODES: [[u8; 16]; RANGES] = {
    let mut all = [[0; 16]; RANGES];
    let mut i = 0;
    while i < RANGES {
        let mut c = 0;
        while c < 16 {
            all[i][c] = code2(c as u8, ends(i).0, ends(i).1);
            c += 1;
        }
        i += 1;
    }
    all
};

/// (min, max) at 2 bits for the range `low ..= high` of 4-bit codes between `min` and `max`, as the cache keeps them.
pub fn params(low: u8, high: u8, min: u16, max: u16) -> (u16, u16) {
    let (min, max) = (codes::from_f16(min), codes::from_f16(max));
    let at = |code| codes::to_f16(codes::dequantize(code, Width::B4, min, max));
    (at(low), at(high))
}

/// The range of least squared error for 4-bit codes, as (low, high); of equal ones the lowest `low`, then the highest
/// `high`. Written for reading: the fast search (`fit.rs`) is compared with it.
pub fn best(codes: &[u8]) -> (u8, u8) {
    let error = |low: u8, high: u8| -> u32 {
        let one = |&c: &u8| {
            let e = 3 * (i32::from(c) - i32::from(low)) - i32::from(code2(c, low, high)) * i32::from(high - low);
            (e * e) as u32
        };
        codes.iter().map(one).sum()
    };
    let all = (0..=6u8).flat_map(|low| (9..=15u8).rev().map(move |high| (low, high)));
    all.min_by_key(|&(low, high)| error(low, high)).unwrap_or((0, 15))
}

/// One token's group of 4-bit codes becomes one of 2-bit codes with the range of least squared error, in place; `min` and
/// `max` are replaced. For a few tokens; `fit.rs` does sixteen at once. A constant group keeps its value. Cells that were never written have garbage before and after, the same
/// garbage on every path.
#[inline(always)]
pub(crate) fn fit(group: &mut [u8], min: &mut u16, max: &mut u16) {
    // four histograms: increments of one wait for each other where codes repeat
    let mut parts = [[0u16; 16]; 4];
    for quad in group.chunks_exact(4) {
        for (part, &c) in parts.iter_mut().zip(quad) {
            part[(c & 15) as usize] += 1;
        }
    }
    let mut errors = [0u32; PADDED];
    for (c, row) in ERRORS.iter().enumerate() {
        let n = u32::from(parts[0][c] + parts[1][c] + parts[2][c] + parts[3][c]);
        for (e, r) in errors.iter_mut().zip(row) {
            *e += n * r;
        }
    }
    let mut found = 0;
    for (i, e) in errors[..RANGES].iter().enumerate() {
        if *e < errors[found] {
            found = i;
        }
    }
    let table = &CODES[found];
    for c in group.iter_mut() {
        *c = table[(*c & 15) as usize];
    }
    let (low, high) = ends(found);
    (*min, *max) = params(low, high, *min, *max);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_goes_to_the_nearest_level() {
        for i in 0..RANGES {
            let (low, high) = ends(i);
            for c in 0..16u8 {
                let distance =
                    |k: u8| (3 * (i32::from(c) - i32::from(low)) - i32::from(k) * i32::from(high - low)).abs();
                let least = (0..4).map(distance).min().unwrap();
                assert_eq!(distance(code2(c, low, high)), least, "{c} in {low}..={high}");
            }
        }
    }

    #[test]
    fn the_whole_range_is_the_papers_shift() {
        for c in 0..16 {
            assert_eq!(u32::from(code2(c, 0, 15)), codes::shift(u32::from(c), 2));
        }
    }
}
