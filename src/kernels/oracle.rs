//! Attention in f64 over everything at once: what the kernels' error is measured against.

use super::attention::Shape;
use super::reference::read_cell;
use super::{codes, AttentionArgs, KernelError};
use crate::geometry::BLOCK;

/// The finished output `[n_token][n_head][D_v]` in f64, chunks and output of `args` ignored. Values are what the cache's codes
/// say without rounding; the current batch is rounded to f16.
///
/// # Errors
/// As [`super::attention_partial`].
pub fn attention_f64(args: &AttentionArgs, sinks: Option<&[f32]>) -> Result<Vec<f64>, KernelError> {
    let p = Shape::new(args)?;
    let mut out = vec![0.0; p.n_token * p.n_head * p.dv];
    for head in 0..p.n_head_kv {
        // every cell's row once; None: in the current batch, or in an empty block
        let mut cache = Vec::new();
        for cell in 0..p.n_kv {
            let visible = (0..p.n_token).any(|t| codes::from_f16(args.mask.row(t)[cell]) > f32::NEG_INFINITY);
            let current = args.current.is_some() && args.cells.contains(&(cell as i64));
            let block = cell / BLOCK;
            let empty = args.k.entry(block)?.width == 0 || args.v.entry(block)?.width == 0;
            if !visible || current || empty {
                continue;
            }
            if let (Some(k), Some(v)) = (read_cell(&args.k, head, cell)?, read_cell(&args.v, head, cell)?) {
                let f64s = |row: Vec<super::reference::Stored>| row.into_iter().map(|x| x.f64()).collect::<Vec<_>>();
                cache.push((cell, f64s(k), f64s(v)));
            }
        }
        if let Some((k, v)) = &args.current {
            for (i, &cell) in args.cells.iter().enumerate() {
                let f64s =
                    |row: &[f32]| row.iter().map(|&x| codes::from_f16(codes::to_f16(x)) as f64).collect::<Vec<_>>();
                cache.push((cell as usize, f64s(k.row(i, head)), f64s(v.row(i, head))));
            }
        }
        for token in 0..p.n_token {
            for h in head * p.ratio..(head + 1) * p.ratio {
                let row = &mut out[(token * p.n_head + h) * p.dv..][..p.dv];
                attend(args, &p, token, h, &cache, sinks, row);
            }
        }
    }
    Ok(out)
}

type Row = (usize, Vec<f64>, Vec<f64>);

fn attend(
    args: &AttentionArgs,
    p: &Shape,
    token: usize,
    head: usize,
    cache: &[Row],
    sinks: Option<&[f32]>,
    out: &mut [f64],
) {
    let q = args.q.row(token, head);
    let cap = p.softcap as f64;
    let seen: Vec<(f64, &Vec<f64>)> = cache
        .iter()
        .filter_map(|(cell, k, v)| {
            let mask = codes::from_f16(args.mask.row(token)[*cell]) as f64;
            let dot: f64 = q.iter().zip(k).map(|(&a, &b)| a as f64 * b).sum();
            let score = if cap != 0.0 { cap * (args.scale as f64 * dot / cap).tanh() } else { args.scale as f64 * dot };
            (mask > f64::NEG_INFINITY).then_some((score + p.slope(head) as f64 * mask, v))
        })
        .collect();
    let sink = sinks.map_or(f64::NEG_INFINITY, |s| s[head] as f64);
    let max = seen.iter().fold(sink, |m, s| m.max(s.0));
    let mut sum = if sink > f64::NEG_INFINITY { (sink - max).exp() } else { 0.0 };
    for (score, v) in seen {
        let w = (score - max).exp();
        sum += w;
        for (o, x) in out.iter_mut().zip(v) {
            *o += w * x;
        }
    }
    if sum > 0.0 {
        out.iter_mut().for_each(|o| *o /= sum);
    }
}
