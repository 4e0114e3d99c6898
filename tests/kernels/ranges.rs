//! The fitted range of the step to 2 bits against a search that is written down here.

use super::common::*;
use pmkvq::geometry::{Side, Width};
use pmkvq::kernels::{codes, range, reference, Cells, Isa, RangeRule, RowsF32};

/// Every range, every code, in f64.
fn slow(codes: &[u8]) -> f64 {
    let mut least = f64::INFINITY;
    for low in 0..=6 {
        for high in 9..=15 {
            let step = f64::from(high - low) / 3.0;
            let error = |c: &u8| {
                let levels = (0..4).map(|k| f64::from(low) + f64::from(k) * step);
                levels.map(|l| (f64::from(*c) - l).powi(2)).fold(f64::INFINITY, f64::min)
            };
            least = least.min(codes.iter().map(error).sum());
        }
    }
    least
}

#[test]
fn the_chosen_range_has_the_least_error() {
    property(200, |rng| {
        let spread = rng.pick(&[1.0, 2.5, 5.0]);
        let center = rng.pick(&[2.0, 7.5, 13.0]);
        let n = rng.pick(&[16, 48, 128]);
        let group: Vec<u8> = (0..n).map(|_| (center + spread * rng.normal()).round().clamp(0.0, 15.0) as u8).collect();
        let (low, high) = range::best(&group);
        let error = |c: &u8| {
            let level = f64::from(low) + f64::from(range::code2(*c, low, high)) * f64::from(high - low) / 3.0;
            (f64::from(*c) - level).powi(2)
        };
        let found: f64 = group.iter().map(error).sum();
        assert!((found - slow(&group)).abs() < 1e-9, "{found} and not {}", slow(&group));
    });
}

/// What a cache at 2 bits gives back of normal values: the fitted grid loses much less than the paper's.
#[test]
fn a_fitted_grid_loses_less() {
    property(5, |rng| {
        let rows: Vec<f32> = (0..128 * 128).map(|_| rng.normal()).collect();
        let mut lost = [0.0; 2];
        for (rule, lost) in RangeRule::ALL.into_iter().zip(&mut lost) {
            let mut c = Cache::new(rng, Side::K, 128, 128, 1, 1);
            c.rule = rule;
            c.open(0, Width::B2);
            let cells: Vec<i64> = (0..128).collect();
            let x = unsafe { RowsF32::new(rows.as_ptr(), 128, 1, 128, 512, 512).unwrap() };
            pmkvq::kernels::store_at(Isa::best(), &c.view(), &x, &cells[..] as Cells, 0, 1).unwrap();
            for t in 0..128 {
                let row = reference::read_cell(&c.view(), 0, t).unwrap().unwrap();
                *lost += row.iter().zip(&rows[t * 128..]).map(|(s, x)| (s.f64() - f64::from(*x)).powi(2)).sum::<f64>();
            }
        }
        let [shift, fit] = lost.map(|l| l / (128.0 * 128.0));
        println!("squared error at 2 bits: shift {shift:.3}, fit {fit:.3}");
        // 0.119 is the least that four even levels can reach on a normal distribution
        assert!(fit > 0.11 && fit < 0.14, "{fit}");
        assert!(shift > 1.6 * fit, "{shift}");
    });
}

#[test]
fn parameters_of_the_whole_range_stay() {
    for (min, max) in [(-1.5f32, 2.25f32), (0.0, 0.0), (-65504.0, 65504.0), (1e-7, 3e-7)] {
        let (min, max) = (codes::to_f16(min), codes::to_f16(max));
        assert_eq!(range::params(0, 15, min, max), (min, max));
    }
}
