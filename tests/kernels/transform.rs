//! Transforms of queries, keys and values before they are stored and attended to.

use super::common::*;
use super::transforms::{Kind, Rows};
use pmkvq::kernels::{rotate, transform_at, Isa, KernelError, PartialsMut, RowsF32, TransformRows};

/// All kinds at once, by `nth` threads.
fn run(
    isa: Isa,
    kinds: &[Kind],
    n_token: usize,
    n_head_kv: usize,
    nth: usize,
) -> (Vec<Vec<f32>>, Result<(), KernelError>) {
    let mut out: Vec<Vec<f32>> = kinds.iter().map(|k| vec![7.0; n_token * k.n_head * k.d]).collect();
    let parts: Vec<TransformRows> = kinds
        .iter()
        .zip(&mut out)
        .map(|(k, out)| TransformRows {
            // SAFETY: rows with the strides that they were made with
            x: unsafe { RowsF32::new(k.x.as_ptr(), k.d, k.n_head, n_token, 4 * k.stride[0], 4 * k.stride[1]) }.unwrap(),
            of: k.of.view(),
            out: PartialsMut::from_slice(out),
        })
        .collect();
    let results: Vec<_> = (0..nth).map(|ith| transform_at(isa, &parts, n_head_kv, ith, nth)).collect();
    drop(parts);
    (out, results.into_iter().collect())
}

#[test]
fn rows_of_every_kind() {
    property(60, |rng| {
        let (n_token, n_head_kv, ratio) = (rng.pick(&[1, 2, 7]), rng.pick(&[1, 2, 3]), rng.pick(&[1, 4, 7]));
        let (dk, dv) = (rng.pick(&[16, 64, 80, 96, 128, 192, 576]), rng.pick(&[1, 24, 64, 128, 256, 512]));
        let kinds = [
            Kind::new(rng, n_token, n_head_kv * ratio, n_head_kv, dk),
            Kind::new(rng, n_token, n_head_kv, n_head_kv, dk),
            Kind::new(rng, n_token, n_head_kv, n_head_kv, dv),
        ];
        let some = &kinds[rng.below(3)..];
        let (plain, _) = run(Isa::Scalar, some, n_token, n_head_kv, 1);
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            for nth in [1, 3, 16] {
                let (got, result) = run(isa, some, n_token, n_head_kv, nth);
                assert_eq!(result, Ok(()));
                some.iter().zip(&got).for_each(|(kind, got)| kind.check(n_token, n_head_kv, got));
                // every level adds in the same order
                let bits = |v: &[Vec<f32>]| v.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(isa == Isa::Reference || bits(&got) == bits(&plain), "{isa:?}");
            }
        }
    });
}

#[test]
fn a_rotation_is_its_own_inverse() {
    let mut rng = Rng::new(3);
    for n in (0..10).map(|i| 1 << i) {
        let x: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let mut y = x.clone();
        rotate(&mut y);
        assert!(n == 1 || y != x);
        rotate(&mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-5), "{n}");
    }
}

#[test]
fn sizes_that_disagree_are_refused() {
    let mut rng = Rng::new(4);
    for isa in [Isa::Reference, Isa::best()] {
        let good = || {
            let mut kind = Kind::new(&mut Rng::new(5), 1, 4, 2, 48);
            kind.of = Rows { center: Some(vec![1.0; 96]), factor: Some(vec![1.0; 96]), hadamard: 16 };
            kind
        };
        let mut try_it = |change: &dyn Fn(&mut Kind), n_head_kv: usize| {
            let mut kind = good();
            change(&mut kind);
            let (out, result) = run(isa, &[kind], 1, n_head_kv, 1 + rng.below(2));
            assert!(result.is_ok() || out[0].iter().all(|&x| x == 7.0));
            result
        };
        assert_eq!(try_it(&|_| (), 2), Ok(()));
        assert_eq!(try_it(&|k| k.of = Rows::default(), 4), Ok(()));
        for n_head_kv in [0, 3, 4] {
            assert!(matches!(try_it(&|_| (), n_head_kv), Err(KernelError::Shape(_))));
        }
        let bad: [fn(&mut Kind); 3] =
            [|k| k.of.hadamard = 12, |k| k.of.hadamard = 32, |k| k.of.factor.as_mut().unwrap().truncate(95)];
        for change in bad {
            assert!(matches!(try_it(&change, 2), Err(KernelError::Shape(_))));
        }
        let mut out = vec![0.0; 4 * 48];
        let kind = good();
        let part = |out: &mut [f32]| TransformRows {
            // SAFETY: as above
            x: unsafe { RowsF32::new(kind.x.as_ptr(), 48, 4, 1, 4 * kind.stride[0], 4 * kind.stride[1]) }.unwrap(),
            of: kind.of.view(),
            // SAFETY: the memory outlives the call
            out: unsafe { PartialsMut::new(out.as_mut_ptr(), out.len()) }.unwrap(),
        };
        let short = transform_at(isa, &[part(&mut out[1..])], 2, 0, 1);
        assert!(matches!(short, Err(KernelError::Shape(_))));
        assert_eq!(transform_at(isa, &[part(&mut out)], 2, 1, 1), Err(KernelError::Thread));
    }
}
