//! Long sums: matrix units cut off what they add to a large sum, the shim's as a GPU's (`tests/cuda/shim/warp.cpp`).

use super::case::*;
use crate::common::*;
use crate::hard::rewrite;
use pmkvq::geometry::Width;

/// 32,768 keys of about equal weight in one chunk: an item's products are summed up apart, or more is lost than the bound allows.
fn many_keys_of_equal_weight(n_token: usize) {
    let rng = &mut Rng::new(32);
    let f = Form::new(128, 128, 32_768, n_token).heads(1, 1).at(Width::B8, Width::B8);
    let mut c = Case::new(rng, &f);
    c.q.iter_mut().for_each(|x| *x *= 0.1);
    // each dimension on one side of zero, so that its sum grows with every key
    let means: Vec<f32> = normals(rng, 128).iter().map(|x| 8.0 * x).collect();
    rewrite(&mut c.v, |x, _, i| *x += means[i]);
    let Bound { want, plain, own, .. } = c.bound("equal weights");
    let e = error(&c.upload().attend(1), &want);
    println!(
        "32,768 keys at 8 bits, {n_token} tokens: error {:.3} of the cache's own, plain f32's {:.4}",
        e / own,
        plain / own
    );
    assert!(e <= own / 4.0 + 2.0 * plain, "error {e:.2e}, the cache's own {own:.2e}");
}

#[test]
fn decode_over_many_keys_of_equal_weight() {
    many_keys_of_equal_weight(1);
}

#[test]
fn prefill_over_many_keys_of_equal_weight() {
    many_keys_of_equal_weight(17);
}
