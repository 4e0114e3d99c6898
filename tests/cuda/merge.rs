//! Merge on the device against f64.

use super::common::*;
use super::device::{self, times, Buffer, INVALID_VALUE};
use super::transform::{DeviceRows, NONE};
use super::transforms::Rows;
use pmkvq::capi::types::OpMerge;

struct Case {
    n_token: usize,
    n_head: usize,
    d: usize,
    n_chunk: usize,
    partial: Vec<f32>,
    sinks: Option<Vec<f32>>,
    n_head_kv: usize,
    back: Rows,
}

impl Case {
    /// Some records saw nothing, and hold anything but for their sum.
    fn new(rng: &mut Rng, n_token: usize, n_head: usize, d: usize, n_chunk: usize) -> Case {
        let mut partial = vec![0.0f32; n_chunk * n_token * n_head * (d + 2)];
        let empty = rng.pick(&[0, 25, 90, 100]);
        for record in partial.chunks_mut(d + 2) {
            if rng.chance(empty) {
                record.fill(rng.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 1e30]));
                record[d] = rng.pick(&[f32::NEG_INFINITY, f32::NAN, f32::INFINITY, 3.0]);
                record[d + 1] = rng.pick(&[0.0, -0.0]);
                continue;
            }
            record.iter_mut().for_each(|x| *x = rng.normal());
            record[d] = rng.normal() * 20.0;
            record[d + 1] = 1.0 + rng.unit() * 50.0;
        }
        let sinks = rng.chance(50).then(|| {
            (0..n_head).map(|h| if h == 1 { f32::NEG_INFINITY } else { rng.normal() * 10.0 }).collect::<Vec<f32>>()
        });
        let n_head_kv = if n_head == 4 { rng.pick(&[1, 2, 4]) } else { 1 };
        let back = if rng.chance(60) { Rows::new(rng, n_head_kv, d) } else { Rows::default() };
        Case { n_token, n_head, d, n_chunk, partial, sinks, n_head_kv, back }
    }

    fn want(&self) -> Vec<f64> {
        let (rows, d) = (self.n_token * self.n_head, self.d);
        let mut out = Vec::with_capacity(rows * d);
        for row in 0..rows {
            let parts: Vec<&[f32]> = (0..self.n_chunk)
                .map(|c| &self.partial[(c * rows + row) * (d + 2)..][..d + 2])
                .filter(|p| p[d + 1] != 0.0)
                .collect();
            let sink = self.sinks.as_ref().map_or(f64::NEG_INFINITY, |s| s[row % self.n_head] as f64);
            let max = parts.iter().fold(sink, |m, p| m.max(p[d] as f64));
            let weights: Vec<f64> = parts.iter().map(|p| (p[d] as f64 - max).exp()).collect();
            let mut sum: f64 = parts.iter().zip(&weights).map(|(p, w)| w * p[d + 1] as f64).sum();
            if sink > f64::NEG_INFINITY {
                sum += (sink - max).exp();
            }
            let total = |i: usize| parts.iter().zip(&weights).map(|(p, w)| w * p[i] as f64).sum::<f64>();
            let merged: Vec<f64> = (0..d).map(|i| if sum == 0.0 { 0.0 } else { total(i) / sum }).collect();
            out.extend(self.back.back(row % self.n_head / (self.n_head / self.n_head_kv), &merged));
        }
        out
    }

    fn check(&self) {
        let partial = Buffer::of(&self.partial);
        let sinks = self.sinks.as_ref().map(|s| Buffer::of(s));
        let out = Buffer::new(4 * self.n_token * self.n_head * self.d);
        let back = DeviceRows::of(&self.back);
        let op = OpMerge {
            partial: partial.ptr().cast(),
            sinks: sinks.as_ref().map_or(std::ptr::null(), |s| s.ptr().cast()),
            n_tokens: self.n_token as u32,
            n_head: self.n_head as u32,
            head_dim_v: self.d as u32,
            n_chunk: self.n_chunk as u32,
            n_head_kv: self.n_head_kv as u32,
            back: back.op(),
            dst: out.ptr().cast(),
        };
        assert_eq!(device::merge(&op), 0);
        for (i, (got, want)) in out.read::<f32>().iter().zip(self.want()).enumerate() {
            let near = (*got as f64 - want).abs() <= 1e-5 * want.abs().max(0.1);
            let Case { n_token, n_head, d, n_chunk, .. } = *self;
            assert!(near, "{got} for {want} at {i}: {n_token} tokens, {n_head} heads of {d}, {n_chunk} chunks");
        }
    }
}

#[test]
fn merges_as_one_softmax() {
    property(times(30), |rng| {
        let d = rng.pick(&[1, 16, 40, 64, 80, 128, 129, 256, 576]);
        let n_chunk = rng.pick(&[1, 2, 3, 5, 8, 9, 33, 64, 128]);
        let (n_token, n_head) = if n_chunk * d > 10_000 {
            (rng.pick(&[1, 2]), rng.pick(&[1, 2]))
        } else {
            (rng.pick(&[1, 3, 8]), rng.pick(&[1, 4, 5]))
        };
        Case::new(rng, n_token, n_head, d, n_chunk).check();
    });
}

#[test]
fn small_numbers_of_chunks() {
    let mut rng = Rng::new(1);
    for n_chunk in (1..20).chain([127, 130]) {
        Case::new(&mut rng, 2, 3, 24, n_chunk).check();
    }
}

#[test]
fn nothing_seen_is_zero() {
    let mut rng = Rng::new(2);
    for n_chunk in [1, 7, 64] {
        let mut case = Case::new(&mut rng, 2, 2, 64, n_chunk);
        for record in case.partial.chunks_mut(66) {
            record.fill(f32::NAN);
            record[65] = 0.0;
        }
        for sinks in [None, Some(vec![f32::NEG_INFINITY, 2.0])] {
            case.sinks = sinks;
            case.check();
        }
    }
}

#[test]
fn shapes_that_make_no_sense_are_refused() {
    let (partial, out) = (Buffer::new(4 * 66), Buffer::new(4 * 64));
    let good = || OpMerge {
        partial: partial.ptr().cast(),
        sinks: std::ptr::null(),
        n_tokens: 1,
        n_head: 1,
        head_dim_v: 64,
        n_chunk: 1,
        n_head_kv: 1,
        back: NONE,
        dst: out.ptr().cast(),
    };
    let bad: [fn(&mut OpMerge); 9] = [
        |o| o.back.hadamard = 48,
        |o| (o.back.hadamard, o.n_head_kv) = (64, 0),
        |o| (o.back.hadamard, o.n_head_kv) = (64, 2),
        |o| o.partial = std::ptr::null(),
        |o| o.dst = std::ptr::null_mut(),
        |o| o.n_chunk = 0,
        |o| o.n_head = 0,
        |o| o.head_dim_v = 0,
        |o| o.dst = o.dst.wrapping_byte_add(2),
    ];
    for change in bad {
        let mut op = good();
        change(&mut op);
        assert_eq!(device::merge(&op), INVALID_VALUE);
    }
    assert_eq!(device::merge(&OpMerge { n_tokens: 0, ..good() }), 0);
    assert!(out.read::<u8>().iter().all(|&b| b == 0xff));
}
