//! Merge of partial results, attention sinks included.

use super::common::*;
use super::transforms::Rows;
use pmkvq::kernels::{attention_merge_at, Isa, KernelError, MergeArgs, PartialsMut};

#[test]
fn merges_as_one_softmax() {
    property(30, |rng| {
        let (n_token, n_head, d) = (rng.pick(&[1, 3, 8]), rng.pick(&[1, 4]), rng.pick(&[1, 40, 64, 128]));
        let n_chunk = rng.pick(&[1, 2, 5]);
        let rows = n_token * n_head;
        let mut partial = vec![0.0f32; n_chunk * rows * (d + 2)];
        for record in partial.chunks_mut(d + 2) {
            if rng.below(4) == 0 {
                record[d] = f32::NEG_INFINITY;
                continue;
            }
            record.iter_mut().for_each(|x| *x = rng.normal());
            record[d] = rng.normal() * 20.0;
            record[d + 1] = 1.0 + rng.unit() * 50.0;
        }
        let sinks: Vec<f32> =
            (0..n_head).map(|h| if h == 1 { f32::NEG_INFINITY } else { rng.normal() * 10.0 }).collect();
        let sinks = (rng.below(2) == 0).then_some(&sinks[..]);
        let n_head_kv = if n_head == 4 { rng.pick(&[1, 2, 4]) } else { 1 };
        let back = if rng.below(2) == 0 { Rows::new(rng, n_head_kv, d) } else { Rows::default() };
        let want: Vec<f64> = (0..rows)
            .flat_map(|row| {
                let part = |c: usize| &partial[(c * rows + row) * (d + 2)..][..d + 2];
                let sink = sinks.map_or(f64::NEG_INFINITY, |s| s[row % n_head] as f64);
                let max = (0..n_chunk).fold(sink, |m, c| m.max(part(c)[d] as f64));
                let w: Vec<f64> = (0..n_chunk)
                    .map(|c| if part(c)[d + 1] == 0.0 { 0.0 } else { (part(c)[d] as f64 - max).exp() })
                    .collect();
                let mut sum: f64 = (0..n_chunk).map(|c| w[c] * part(c)[d + 1] as f64).sum();
                if sink > f64::NEG_INFINITY {
                    sum += (sink - max).exp();
                }
                let total = |i: usize| (0..n_chunk).map(|c| w[c] * part(c)[i] as f64).sum::<f64>();
                let merged: Vec<f64> = (0..d).map(|i| if sum == 0.0 { 0.0 } else { total(i) / sum }).collect();
                back.back(row % n_head / (n_head / n_head_kv), &merged)
            })
            .collect();
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            for nth in [1, 2, 16] {
                let mut out = vec![f32::NAN; rows * d];
                for ith in 0..nth {
                    let out = PartialsMut::from_slice(&mut out);
                    let back = back.view();
                    let args = MergeArgs {
                        partial: &partial,
                        sinks,
                        n_token,
                        n_head,
                        head_dim: d,
                        n_chunk,
                        n_head_kv,
                        back,
                        out,
                    };
                    attention_merge_at(isa, &args, ith, nth).unwrap();
                }
                for (got, want) in out.iter().zip(&want) {
                    assert!((*got as f64 - want).abs() <= 1e-5 * want.abs().max(0.1), "{got} for {want}, {isa:?}");
                }
            }
        }
    });
}

#[test]
fn sizes_that_disagree_are_refused() {
    for isa in [Isa::Reference, Isa::best()] {
        let partial = vec![0.0; 66];
        let mut out = vec![0.0; 64];
        let mut run = |n_token, n_chunk, nth, back: &Rows| {
            let out = PartialsMut::from_slice(&mut out);
            let back = back.view();
            let args = MergeArgs {
                partial: &partial,
                sinks: None,
                n_token,
                n_head: 1,
                head_dim: 64,
                n_chunk,
                n_head_kv: 1,
                back,
                out,
            };
            attention_merge_at(isa, &args, 0, nth)
        };
        let none = Rows::default();
        assert_eq!(run(1, 1, 1, &none), Ok(()));
        assert_eq!(run(0, 1, 1, &none), Ok(()));
        assert!(matches!(run(1, 2, 1, &none), Err(KernelError::Shape(_))));
        assert!(matches!(run(2, 1, 1, &none), Err(KernelError::Shape(_))));
        assert!(matches!(run(usize::MAX, 3, 1, &none), Err(KernelError::Shape(_))));
        assert_eq!(run(1, 1, 0, &none), Err(KernelError::Thread));
        let wrong = Rows { hadamard: 48, ..Rows::default() };
        assert!(matches!(run(1, 1, 1, &wrong), Err(KernelError::Shape(_))));
    }
}
