//! The picture of falling widths is the policy's own doing.

use pmkvq::geometry::Width;
use pmkvq::policy::fall::{simulate, FallError};

use super::rules::{config, side};

#[test]
fn widths_fall_with_length_and_end_at_the_plan() {
    let sides = vec![side(Width::B4, [0.0, 10.0, 30.0, 90.0]), side(Width::B2, [0.0, 1.0, 2.0, 3.0])];
    // A token in the sink and whole blocks: the open block and the window are the same share of each length.
    let lengths = [0, 1, 129, 513, 1025, 2049, 3073, 3969];
    let samples = simulate(config(4096, sides, 20), &lengths, 128).unwrap();
    assert_eq!(samples.iter().map(|s| s.n_tokens).collect::<Vec<_>>(), lengths);
    for sample in &samples {
        assert!(sample.tokens.iter().all(|t| t.iter().sum::<u32>() == sample.n_tokens));
        assert!(sample.stats.bytes_held <= sample.stats.bytes_total);
    }
    for side in 0..2 {
        let bits: Vec<f64> = samples[1..].iter().map(|s| s.mean_bits(side)).collect();
        assert!(bits.windows(2).all(|w| w[1] <= w[0]), "{bits:?}");
        assert_eq!(bits[0], 16.0);
    }
    let last = samples.last().unwrap();
    assert!(last.mean_bits(0) < 6.0 && last.mean_bits(1) < 4.0, "{last:?}");
    assert!(last.mean_bits(0) >= 4.0 && last.mean_bits(1) >= 2.0);
}

#[test]
fn bad_steps_are_refused() {
    let sides = || vec![side(Width::B4, [0.0; 4]); 2];
    assert_eq!(simulate(config(1024, sides(), 0), &[10], 0).unwrap_err(), FallError::BadSteps);
    assert_eq!(simulate(config(1024, sides(), 0), &[10, 5], 1).unwrap_err(), FallError::BadSteps);
    let long = simulate(config(1024, sides(), 0), &[1025], 1).unwrap_err();
    assert_eq!(long, FallError::TooLong { length: 1025, n_ctx: 1024 });
    let mut none = config(1024, sides(), 0);
    none.n_ctx = 0;
    assert!(matches!(simulate(none, &[1], 1).unwrap_err(), FallError::Config(_)));
}
