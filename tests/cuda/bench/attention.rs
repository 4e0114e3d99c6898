//! Attention of one token for each sequence, as in decoding, over caches that a plan would make: everything at one width but the
//! sink block and the latest two blocks of each sequence. Sequences' blocks alternate.
//!
//! Bytes are those that must be read: codes and parameters of every block, halves of the latest blocks, the sink block's tokens
//! (one for each sequence), and the current K and V. Masks, tables and partial results are not counted.

use super::memory::{block_bytes, Memory, Pages, D, GROUP};
use super::{seconds, Copies, Size};
use crate::device::{self, Buffer, Device, Listed, Op, Within};
use crate::rng::Rng;
use pmkvq::capi::types::{OpAttn, OpMerge, RowTransformC};
use pmkvq::geometry::{params_bytes, BlockEntry, Width, BLOCK};

/// More than the L2 holds, so that each layer comes from memory.
const ROTATE: usize = 256 << 20;

#[derive(Clone, Copy)]
struct Shape {
    n_head: usize,
    n_head_kv: usize,
    depth: usize,
    n_seq: usize,
    width: Width,
    /// Queries, with one sequence; with several each has one.
    n_tok: usize,
}

impl Shape {
    fn n_blocks(&self) -> usize {
        1 + self.n_seq * self.depth / BLOCK
    }

    /// The width of a block: the sink's and the latest two of each sequence are at 16 bits.
    fn width(&self, block: usize) -> Width {
        if block == 0 || block + 2 * self.n_seq >= self.n_blocks() {
            Width::B16
        } else {
            self.width
        }
    }

    /// Of a layer, K and V.
    fn bytes(&self) -> usize {
        let blocks: usize = (1..self.n_blocks()).map(|b| block_bytes(self.width(b), self.n_head_kv)).sum();
        let rows = 2 * self.n_seq * self.n_head_kv * D * (2 + 4);
        2 * blocks + rows
    }

    fn n_pages(&self) -> usize {
        2 * (0..self.n_blocks()).map(|b| self.width(b).pages()).sum::<usize>()
    }

    fn n_layers(&self) -> usize {
        let rotate = if Device::get().is_shim() { 1 << 20 } else { ROTATE };
        usize::div_ceil(rotate, self.bytes())
    }

    fn pool_bytes(&self) -> usize {
        self.n_layers() * self.n_pages() * self.n_head_kv * pmkvq::geometry::page_bytes(D)
    }

    fn params_bytes(&self) -> usize {
        self.n_layers() * 2 * params_bytes(self.n_blocks(), self.n_head_kv, D / GROUP)
    }
}

fn shapes(size: Size) -> Vec<Shape> {
    let heads: &[(usize, usize)] = match size {
        Size::Tiny => &[(4, 2)],
        Size::Quick => &[(32, 8), (28, 4)],
        Size::Full | Size::Prefill => &[(32, 8), (28, 4), (40, 8)],
    };
    let depths: &[(usize, usize)] = match size {
        Size::Tiny => &[(512, 1), (512, 2)],
        Size::Quick => &[(8192, 1), (32768, 1), (131072, 1), (8192, 4), (8192, 16)],
        Size::Prefill => &[(8192, 1), (32768, 1), (131072, 1)],
        Size::Full => &[
            (8192, 1),
            (32768, 1),
            (131072, 1),
            (8192, 4),
            (32768, 4),
            (131072, 4),
            (8192, 16),
            (32768, 16),
            (131072, 16),
        ],
    };
    let usual = if size == Size::Prefill { 512 } else { 1 };
    let tokens = std::env::var("PMKVQ_BENCH_TOKENS").map_or(usual, |s| s.parse().expect("a number"));
    let mut all = Vec::new();
    for &(n_head, n_head_kv) in heads {
        for &(depth, n_seq) in depths {
            all.extend(Width::ALL.map(|width| Shape {
                n_head,
                n_head_kv,
                depth,
                n_seq,
                width,
                n_tok: if n_seq == 1 { tokens } else { n_seq },
            }));
        }
    }
    if let Ok(only) = std::env::var("PMKVQ_BENCH_ONLY") {
        all.retain(|s| format!("{}/{} {} {} {}", s.n_head, s.n_head_kv, s.depth, s.n_seq, s.width) == only);
        assert!(!all.is_empty(), "PMKVQ_BENCH_ONLY is 'heads/KV heads depth sequences bits'");
    }
    all
}

pub fn table(size: Size, copies: &Copies) {
    let shapes = shapes(size);
    let most = |f: fn(&Shape) -> usize| shapes.iter().map(f).max().expect("shapes");
    let memory = Memory::new(most(Shape::pool_bytes), most(Shape::params_bytes));
    println!(
        "\nattention and merge of a layer; target: 8 us + bytes / (0.85 of the copies' bandwidth; 0.65 at 2 bits)\n"
    );
    println!(
        "| heads | depth | sequences | tokens | bits | chunks | layers | MiB | us | GB/s | target | time/target | lists us |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for s in &shapes {
        measure(s, &memory, copies, if size == Size::Tiny { 1 } else { 20 });
    }
}

/// A layer's tables and parameters.
struct Layer {
    tables: [Buffer; 2],
    params: [*const u16; 2],
}

fn measure(s: &Shape, memory: &Memory, copies: &Copies, n_runs: usize) {
    let rng = &mut Rng::new(7);
    let (n_tok, n_kv) = (s.n_tok, s.n_blocks() * BLOCK);
    let mut floats = |n: usize| Buffer::of(&(0..n).map(|_| rng.normal()).collect::<Vec<f32>>());
    let (q, k, v) = (floats(n_tok * s.n_head * D), floats(n_tok * s.n_head_kv * D), floats(n_tok * s.n_head_kv * D));
    let mask = Buffer::of(&mask(s));
    // the last cell of each sequence is the current token's; with one sequence the last cells
    let step = if s.n_seq > 1 { BLOCK } else { 1 };
    let cells: Vec<i64> = (0..n_tok).map(|t| (n_kv - (n_tok - t - 1) * step - 1) as i64).collect();
    let cells = Buffer::of(&cells);

    let mut pages = Pages::of(&memory.pool, s.n_head_kv);
    let n_pages = pages.n() as u32;
    let side_params = params_bytes(s.n_blocks(), s.n_head_kv, D / GROUP);
    let layers: Vec<Layer> = (0..s.n_layers())
        .map(|l| {
            let mut side = || (0..s.n_blocks()).map(|b| pages.block(s.width(b))).collect::<Vec<BlockEntry>>();
            let tables = [Buffer::of(&side()), Buffer::of(&side())];
            let params =
                [2 * l, 2 * l + 1].map(|i| memory.params.ptr().wrapping_add(i * side_params).cast_const().cast());
            Layer { tables, params }
        })
        .collect();

    let own = Device::get().n_chunk(n_tok as u32, n_kv as u32, s.n_head as u32, s.n_head_kv as u32) as usize;
    let tried = std::env::var("PMKVQ_BENCH_CHUNKS");
    let tried = tried.map_or(vec![own], |s| s.split(',').map(|n| n.parse().expect("numbers and commas")).collect());
    for n_chunk in tried {
        let partial = Buffer::new(4 * n_chunk * n_tok * s.n_head * (D + 2));
        let out = Buffer::new(4 * n_tok * s.n_head * D);
        let attn = |l: &Layer| OpAttn {
            q: q.ptr().cast(),
            q_nb_head: 4 * D,
            q_nb_token: 4 * D * s.n_head,
            k_cur: k.ptr().cast(),
            k_nb_head: 4 * D,
            k_nb_token: 4 * D * s.n_head_kv,
            v_cur: v.ptr().cast(),
            v_nb_head: 4 * D,
            v_nb_token: 4 * D * s.n_head_kv,
            mask: mask.ptr().cast(),
            mask_nb_token: 2 * n_kv,
            cells: cells.ptr().cast(),
            n_tokens: n_tok as u32,
            n_kv: n_kv as u32,
            n_head: s.n_head as u32,
            n_head_kv: s.n_head_kv as u32,
            head_dim_k: D as u32,
            head_dim_v: D as u32,
            group_k: GROUP as u32,
            group_v: GROUP as u32,
            n_blocks: s.n_blocks() as u32,
            n_chunk: n_chunk as u32,
            scale: 1.0 / (D as f32).sqrt(),
            softcap: 0.0,
            max_bias: 0.0,
            one_seq: (s.n_seq == 1) as u32,
            pool_k: memory.pool.ptr(),
            pool_v: memory.pool.ptr(),
            n_pages_k: n_pages,
            n_pages_v: n_pages,
            table_k: l.tables[0].ptr().cast(),
            table_v: l.tables[1].ptr().cast(),
            params_k: l.params[0],
            params_v: l.params[1],
            dst: partial.ptr().cast(),
            next_task: std::ptr::null(),
        };
        let merge = OpMerge {
            partial: partial.ptr().cast(),
            sinks: std::ptr::null(),
            n_tokens: n_tok as u32,
            n_head: s.n_head as u32,
            head_dim_v: D as u32,
            n_chunk: n_chunk as u32,
            n_head_kv: 1,
            back: RowTransformC::NONE,
            dst: out.ptr().cast(),
        };
        // lists of what is seen are made once for all layers, where the backend would make any
        let lists = Buffer::new(device::seen_bytes(&attn(&layers[0])).max(4));
        let attns: Vec<Listed> = layers.iter().map(|l| Listed { op: attn(l), seen: lists.ptr() }).collect();
        let pays = device::seen_pays(&attns[0].op);
        let shared = std::env::var("PMKVQ_BENCH_SHARED").map(|kib| kib.parse::<usize>().expect("KiB") << 10);
        let within: Vec<Within> = (shared.into_iter())
            .flat_map(|shared| layers.iter().map(move |l| (l, shared)))
            .map(|(l, shared)| Within { op: attn(l), shared })
            .collect();
        let t_lists = pays.then(|| seconds(&[Op::Seen(&attns[0])], n_runs));
        let mut ops = Vec::new();
        for (i, a) in attns.iter().enumerate() {
            let usual = if pays { Op::AttnSeen(a) } else { Op::Attn(&a.op) };
            ops.extend([within.get(i).map_or(usual, Op::Within), Op::Merge(&merge)]);
        }
        let t = seconds(&ops, n_runs) / layers.len() as f64;
        check(&out.read());

        let bytes = s.bytes() as f64;
        let share = if s.width == Width::B2 { 0.65 } else { 0.85 };
        let target = 8e-6 + bytes / (share * copies.bandwidth);
        println!(
            "| {}/{} | {} | {} | {} | {} | {n_chunk} | {} | {:.1} | {:.1} | {:.0} | {:.1} | {:.2} | {} |",
            s.n_head,
            s.n_head_kv,
            s.depth,
            s.n_seq,
            s.n_tok / s.n_seq,
            s.width,
            layers.len(),
            bytes / f64::from(1 << 20),
            t * 1e6,
            bytes / t / 1e9,
            target * 1e6,
            t / target,
            t_lists.map_or("-".into(), |t| format!("{:.1}", t * 1e6))
        );
    }
}

/// Sums of values within +-2, the current ones a little further out.
fn check(out: &[f32]) {
    assert!(out.iter().all(|x| x.abs() < 5.0), "the attention gave nonsense");
}

/// A sequence sees its own blocks and its token in the sink block.
fn mask(s: &Shape) -> Vec<u16> {
    let n_kv = s.n_blocks() * BLOCK;
    let mut mask = vec![half::f16::NEG_INFINITY.to_bits(); s.n_tok * n_kv];
    if s.n_seq == 1 {
        for t in 0..s.n_tok {
            mask[t * n_kv..][..n_kv - s.n_tok + t + 1].fill(0);
        }
        return mask;
    }
    for t in 0..s.n_seq {
        let row = &mut mask[t * n_kv..][..n_kv];
        row[t] = 0;
        for block in (1 + t..s.n_blocks()).step_by(s.n_seq) {
            row[block * BLOCK..][..BLOCK].fill(0);
        }
    }
    mask
}
