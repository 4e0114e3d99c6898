//! What f16 queries and weights cost where keys and values are f16: upstream's flash attention rounds both, and so may ours.
//!
//! Attention in f64 in which a query is rounded to f16 (with the scale in it, as upstream has it) for the keys that are f16, and
//! a weight for the values that are. Codes get both unrounded: their share of the error is measured by the cache's own.

use super::case::Case;
use half::f16;
use pmkvq::geometry::BLOCK;
use pmkvq::kernels::reference::{read_cell, Stored};

struct Cell {
    cell: usize,
    k: Vec<f64>,
    v: Vec<f64>,
    k_half: bool,
    v_half: bool,
}

/// `[n_token][n_head][D_v]`.
pub fn with_halves(c: &mut Case) -> Vec<f64> {
    let (n_token, dk, dv) = (c.n_token(), c.k.d, c.v.d);
    let ratio = c.n_head / c.k.n_head;
    let mut out = vec![0.0; n_token * c.n_head * dv];
    for head in 0..c.k.n_head {
        let cells = cells_of(c, head);
        for row in 0..n_token * ratio {
            let (token, h) = (row / ratio, head * ratio + row % ratio);
            let at = token * c.n_head + h;
            attend(c, token, h, &c.q[at * dk..][..dk], &cells, &mut out[at * dv..][..dv]);
        }
    }
    out
}

/// Everything that any query may see.
fn cells_of(c: &mut Case, head: usize) -> Vec<Cell> {
    let f64s = |row: Vec<Stored>| (matches!(row[0], Stored::Half(_)), row.into_iter().map(|x| x.f64()).collect());
    let mut current = vec![false; c.n_kv];
    if c.current {
        c.cells.iter().for_each(|cell| current[*cell as usize] = true);
    }
    let (k_side, v_side) = (c.k.view(), c.v.view());
    let mut cells = Vec::new();
    for cell in (0..c.n_kv).filter(|cell| !current[*cell]) {
        let seen = c.mask.chunks(c.n_kv).any(|row| visible(row[cell]).is_some());
        let block = cell / BLOCK;
        if seen && k_side.entry(block).unwrap().width != 0 && v_side.entry(block).unwrap().width != 0 {
            let (k_half, k) = f64s(read_cell(&k_side, head, cell).unwrap().unwrap());
            let (v_half, v) = f64s(read_cell(&v_side, head, cell).unwrap().unwrap());
            cells.push(Cell { cell, k, v, k_half, v_half });
        }
    }
    if c.current {
        let row = |x: &[f32], d: usize, i: usize| {
            let row = &x[(i * c.k.n_head + head) * d..][..d];
            row.iter().map(|x| f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f64()).collect()
        };
        for (i, &cell) in c.cells.iter().enumerate() {
            let (k, v) = (row(&c.k_cur, c.k.d, i), row(&c.v_cur, c.v.d, i));
            cells.push(Cell { cell: cell as usize, k, v, k_half: true, v_half: true });
        }
    }
    cells
}

fn visible(mask: u16) -> Option<f64> {
    Some(f16::from_bits(mask).to_f64()).filter(|m| *m > f64::NEG_INFINITY)
}

fn attend(c: &Case, token: usize, h: usize, q: &[f32], cells: &[Cell], out: &mut [f64]) {
    let cap = c.softcap as f64;
    let scale = if cap != 0.0 { c.scale as f64 / cap } else { c.scale as f64 };
    let exact: Vec<f64> = q.iter().map(|x| *x as f64 * scale).collect();
    let rounded: Vec<f64> = exact.iter().map(|x| f16::from_f64(*x).to_f64()).collect();
    let slope = slope(c, h);
    let seen: Vec<(f64, &Cell)> = cells
        .iter()
        .filter_map(|cell| {
            let mask = visible(c.mask[token * c.n_kv + cell.cell])?;
            let q = if cell.k_half { &rounded } else { &exact };
            let mut score: f64 = q.iter().zip(&cell.k).map(|(a, b)| a * b).sum();
            if cap != 0.0 {
                score = cap * score.tanh();
            }
            Some((score + slope * mask, cell))
        })
        .collect();
    let max = seen.iter().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
    let sink = c.sinks.as_ref().map_or(f64::NEG_INFINITY, |s| s[h] as f64);
    let mut sum = 0.0;
    for (score, cell) in seen {
        let p = (score - max).exp();
        sum += p;
        let p = if cell.v_half { f16::from_f64(p).to_f64() } else { p };
        out.iter_mut().zip(&cell.v).for_each(|(o, v)| *o += p * v);
    }
    if sum == 0.0 {
        return; // nothing is seen: zeros
    }
    // the sink joins when parts are merged, after the weights were rounded
    sum += (sink - max).exp();
    out.iter_mut().for_each(|o| *o /= sum);
}

/// ALiBi's slope (src/kernels/attention/mod.rs).
fn slope(c: &Case, head: usize) -> f64 {
    if c.max_bias <= 0.0 {
        return 1.0;
    }
    let (low, bias) = (1usize << c.n_head.ilog2(), c.max_bias as f64);
    let base = |bias: f64| (-bias / low as f64).exp2();
    if head < low {
        base(bias).powi(head as i32 + 1)
    } else {
        base(bias / 2.0).powi(2 * (head - low) as i32 + 1)
    }
}
