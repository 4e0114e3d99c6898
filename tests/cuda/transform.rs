//! Transforms of queries, keys and values on the device.

use super::common::*;
use super::device::{self, times, Buffer, INVALID_VALUE};
use super::transforms::{Kind, Rows};
use pmkvq::capi::types::{OpTransform, RowTransformC, TransformRowsC};
use pmkvq::kernels::{transform_at, Isa, PartialsMut, RowsF32, TransformRows};

pub const NONE: RowTransformC = RowTransformC::NONE;

/// A transform on the device.
pub struct DeviceRows {
    center: Option<Buffer>,
    factor: Option<Buffer>,
    hadamard: usize,
}

impl DeviceRows {
    pub fn of(t: &Rows) -> DeviceRows {
        let put = |v: &Option<Vec<f32>>| v.as_ref().map(|v| Buffer::of(v));
        DeviceRows { center: put(&t.center), factor: put(&t.factor), hadamard: t.hadamard }
    }

    pub fn op(&self) -> RowTransformC {
        let at = |b: &Option<Buffer>| b.as_ref().map_or(std::ptr::null(), |b| b.ptr().cast_const().cast());
        RowTransformC { center: at(&self.center), factor: at(&self.factor), hadamard: self.hadamard as u32 }
    }
}

const ABSENT: TransformRowsC = TransformRowsC {
    x: std::ptr::null(),
    x_nb_head: 0,
    x_nb_token: 0,
    n_head: 0,
    head_dim: 0,
    of: NONE,
    dst: std::ptr::null_mut(),
};

/// What the CPU's kernel gives.
fn on_the_cpu(kind: &Kind, n_token: usize, n_head_kv: usize) -> Vec<f32> {
    let mut out = vec![0.0; n_token * kind.n_head * kind.d];
    let stride = kind.stride.map(|s| 4 * s);
    let part = TransformRows {
        // SAFETY: rows with the strides that they were made with
        x: unsafe { RowsF32::new(kind.x.as_ptr(), kind.d, kind.n_head, n_token, stride[0], stride[1]) }.unwrap(),
        of: kind.of.view(),
        out: PartialsMut::from_slice(&mut out),
    };
    transform_at(Isa::Scalar, &[part], n_head_kv, 0, 1).unwrap();
    out
}

/// All kinds in one launch, some of them absent.
fn check(rng: &mut Rng, n_token: usize, n_head_kv: usize, ratio: usize, dk: usize, dv: usize) {
    let kinds = [(ratio, dk), (1, dk), (1, dv)]
        .map(|(r, d)| (rng.below(4) > 0).then(|| Kind::new(rng, n_token, n_head_kv * r, n_head_kv, d)));
    let on: Vec<_> = kinds
        .iter()
        .map(|k| {
            k.as_ref().map(|k| (Buffer::of(&k.x), DeviceRows::of(&k.of), Buffer::new(4 * n_token * k.n_head * k.d)))
        })
        .collect();
    let rows = std::array::from_fn(|i| match (&kinds[i], &on[i]) {
        (Some(k), Some((x, of, out))) => TransformRowsC {
            x: x.ptr().cast_const().cast(),
            x_nb_head: 4 * k.stride[0],
            x_nb_token: 4 * k.stride[1],
            n_head: k.n_head as u32,
            head_dim: k.d as u32,
            of: of.op(),
            dst: out.ptr().cast(),
        },
        _ => ABSENT,
    });
    assert_eq!(device::transform(&OpTransform { rows, n_tokens: n_token as u32, n_head_kv: n_head_kv as u32 }), 0);
    for (kind, on) in kinds.iter().zip(&on) {
        if let (Some(kind), Some((.., out))) = (kind, on) {
            let got = out.read::<f32>();
            kind.check(n_token, n_head_kv, &got);
            // what is stored is the same wherever it is done
            let want = on_the_cpu(kind, n_token, n_head_kv);
            assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "not the CPU's bits");
        }
    }
}

#[test]
fn rows_of_every_kind() {
    property(times(25), |rng| {
        let (n_token, n_head_kv, ratio) = (rng.pick(&[1, 2, 5]), rng.pick(&[1, 2, 3]), rng.pick(&[1, 4, 7]));
        let (dk, dv) = (rng.pick(&[16, 64, 80, 96, 128, 192, 576]), rng.pick(&[1, 24, 64, 128, 256, 512]));
        check(rng, n_token, n_head_kv, ratio, dk, dv);
    });
}

#[test]
fn small_transforms() {
    let mut rng = Rng::new(7);
    for d in [64, 80, 128, 256, 576] {
        check(&mut rng, 3, 2, 4, d, d);
    }
}

#[test]
fn shapes_that_make_no_sense_are_refused() {
    let (x, out, of) = (Buffer::new(4 * 4 * 48), Buffer::new(4 * 4 * 48), Buffer::of(&[1.0f32; 96]));
    let good = || {
        let values = of.ptr().cast_const().cast();
        let rows = TransformRowsC {
            x: x.ptr().cast_const().cast(),
            x_nb_head: 4 * 48,
            x_nb_token: 16 * 48,
            n_head: 4,
            head_dim: 48,
            of: RowTransformC { center: values, factor: values, hadamard: 16 },
            dst: out.ptr().cast(),
        };
        OpTransform { rows: [ABSENT, rows, ABSENT], n_tokens: 1, n_head_kv: 2 }
    };
    let bad: [fn(&mut OpTransform); 10] = [
        |o| o.n_head_kv = 0,
        |o| o.n_head_kv = 3,
        |o| o.n_tokens = u32::MAX,
        |o| o.rows[1].x = std::ptr::null(),
        |o| o.rows[1].dst = std::ptr::null_mut(),
        |o| o.rows[1].x_nb_head += 2,
        |o| o.rows[1].of.center = o.rows[1].of.center.wrapping_byte_add(1),
        |o| o.rows[1].of.hadamard = 32,
        |o| o.rows[1].of.hadamard = 24,
        |o| o.rows[1].head_dim = 592,
    ];
    for change in bad {
        let mut op = good();
        change(&mut op);
        assert_eq!(device::transform(&op), INVALID_VALUE);
    }
    assert_eq!(device::transform(&OpTransform { n_tokens: 0, ..good() }), 0);
    assert_eq!(device::transform(&OpTransform { rows: [ABSENT; 3], ..good() }), 0);
    assert!(out.read::<u8>().iter().all(|&b| b == 0xff));
}
