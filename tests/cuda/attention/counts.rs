//! A prefill for the stand-in's counts (`PMKVQ_PTX_REPORT=1`): instructions, passes of shared memory, sectors of global memory.

use super::case::*;
use crate::common::*;
use pmkvq::geometry::Width;

/// 256 tokens of four query heads that share a KV head of 128 dimensions. `PMKVQ_COUNT=8,99,3072`: the cache's width in bits, KiB of
/// shared memory that a CTA can have, and cells of history. What a history of so many cells more adds is the loop's cost.
#[test]
#[ignore = "measures; wants the library of `cuda_lib.py ptx`"]
fn counts() {
    let what = std::env::var("PMKVQ_COUNT").expect("PMKVQ_COUNT=bits,KiB,cells");
    let numbers: Vec<usize> = what.split(',').map(|n| n.parse().expect("bits,KiB,cells")).collect();
    let [bits, kib, cells] = numbers[..] else { panic!("PMKVQ_COUNT=bits,KiB,cells, not '{what}'") };
    let width = Width::ALL.into_iter().find(|w| w.bits() == bits).expect("16, 8, 4 or 2 bits");
    let case = Case::new(&mut Rng::new(1), &Form::new(128, 128, cells + 256, 256).heads(1, 4).at(width, width));
    case.upload().partials_by(1, Way::Within(kib << 10));
}
