//! What changes the cache: shrinking blocks in place, against a copy that reads and writes as many bytes; storing tokens.

use super::memory::{block_bytes, Memory, Pages, D, GROUP};
use super::{seconds, Copies, Size};
use crate::device::{self, Buffer, Op};
use crate::rng::Rng;
use pmkvq::capi::types::{OpStore, SideDesc};
use pmkvq::geometry::{params_bytes, table_bytes, BlockEntry, Width, BLOCK};
use pmkvq::policy::BlockOp;

const N_HEAD_KV: usize = 8;

pub fn table(size: Size, copies: &Copies) {
    let (n_blocks, n_runs) = if size == Size::Tiny { (4, 1) } else { (1024, 20) };
    shrinks(n_blocks, n_runs, copies);
    if size != Size::Tiny {
        // as many as a step of a real model may shrink at once
        shrinks(64, n_runs, copies);
    }
    stores(n_runs);
}

/// Half of the blocks are K's, half V's.
fn shrinks(n_blocks: usize, n_runs: usize, copies: &Copies) {
    println!("\nshrinking {n_blocks} blocks of {N_HEAD_KV}x{D}\n");
    println!("| side | step | MiB read and written | us | GB/s | time/copy |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for (side, name) in [(0, "K"), (1, "V")] {
        let steps = [
            (Width::B16, Width::B8, 0),
            (Width::B8, Width::B4, 0),
            (Width::B4, Width::B2, 0),
            (Width::B4, Width::B2, 1),
        ];
        for (from, to, range) in steps {
            let bytes = n_blocks * shrunk_bytes(from, to, range);
            let t = shrink(n_blocks, side, from, to, range, n_runs);
            let copy = copies.seconds(bytes);
            let rule = if range == 1 { ", fitted" } else { "" };
            println!(
                "| {name} | {from} to {to}{rule} | {:.1} | {:.1} | {:.0} | {:.2} |",
                bytes as f64 / f64::from(1 << 20),
                t * 1e6,
                bytes as f64 / t / 1e9,
                t / copy
            );
        }
    }
}

/// Codes read and written, and parameters where they are: written from 16 bits, read and written by a fit.
fn shrunk_bytes(from: Width, to: Width, range: u32) -> usize {
    let codes = |w: Width| N_HEAD_KV * w.pages() * pmkvq::geometry::page_bytes(D);
    let params = block_bytes(to, N_HEAD_KV) - codes(to);
    let times = if from == Width::B16 { 1 } else { 2 * range as usize };
    codes(from) + codes(to) + times * params
}

fn shrink(n_blocks: usize, side: u32, from: Width, to: Width, range: u32, n_runs: usize) -> f64 {
    let pool = n_blocks * from.pages() * N_HEAD_KV * pmkvq::geometry::page_bytes(D);
    let memory = Memory::new(pool, 0);
    let mut pages = Pages::of(&memory.pool, N_HEAD_KV);
    let ops: Vec<BlockOp> = (0..n_blocks)
        .map(|block| {
            let src = pages.block(from).pages;
            let mut dst = [-1; 8];
            (0..to.pages()).for_each(|i| dst[i] = src[2 * i]);
            BlockOp { side, block: block as u32, from: from.bits() as i32, to: to.bits() as i32, src, dst }
        })
        .collect();
    let table = table_bytes(n_blocks);
    let side_bytes = (table + params_bytes(n_blocks, N_HEAD_KV, D / GROUP)).next_multiple_of(64);
    let meta = Memory::new(0, 2 * side_bytes).params;
    let sides = [0, 1].map(|i| SideDesc { pool: 0, group: GROUP as u32, range, offset: (i * side_bytes) as u64 });
    let (ops, sides) = (Buffer::of(&ops), Buffer::of(&sides));
    let op = device::Shrink {
        ops: ops.ptr().cast(),
        sides: sides.ptr().cast(),
        n_ops: n_blocks as u32,
        n_sides: 2,
        n_head_kv: N_HEAD_KV as u32,
        head_dim: D as u32,
        n_pages: pages.n() as u32,
        n_blocks: n_blocks as u32,
        pool: memory.pool.ptr(),
        meta: meta.ptr(),
        table_bytes: table as u64,
        done: std::ptr::null_mut(),
    };
    seconds(&[Op::Shrink(&op)], n_runs)
}

fn stores(n_runs: usize) {
    println!("\nstoring K and V of a layer, {N_HEAD_KV}x{D}, us\n");
    println!("| tokens | 16 bits | 8 bits | 4 bits | 2 bits | 2 bits, fitted |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for n in [1, 16, 512] {
        let mut line = format!("| {n} |");
        for (width, range) in Width::ALL.map(|w| (w, 0)).into_iter().chain([(Width::B2, 1)]) {
            line += &format!(" {:.1} |", store(n, width, range, n_runs) * 1e6);
        }
        println!("{line}");
    }
}

fn store(n_token: usize, width: Width, range: u32, n_runs: usize) -> f64 {
    let rng = &mut Rng::new(3);
    let n_blocks = 4;
    let pool = 2 * n_blocks * width.pages() * N_HEAD_KV * pmkvq::geometry::page_bytes(D);
    let memory = Memory::new(pool, 2 * params_bytes(n_blocks, N_HEAD_KV, D / GROUP));
    let mut pages = Pages::of(&memory.pool, N_HEAD_KV);
    let x: Vec<f32> = (0..n_token * N_HEAD_KV * D).map(|_| rng.normal()).collect();
    let x = Buffer::of(&x);
    let cells = Buffer::of(&(0..n_token as i64).map(|c| c % (n_blocks * BLOCK) as i64).collect::<Vec<_>>());
    let tables = [0, 1].map(|_| Buffer::of(&(0..n_blocks).map(|_| pages.block(width)).collect::<Vec<BlockEntry>>()));
    let ops = [0, 1].map(|side| OpStore {
        x: x.ptr().cast(),
        x_nb_head: 4 * D,
        x_nb_token: 4 * D * N_HEAD_KV,
        cells: cells.ptr().cast(),
        n_tokens: n_token as u32,
        n_head_kv: N_HEAD_KV as u32,
        head_dim: D as u32,
        group: GROUP as u32,
        range,
        n_pages: pages.n() as u32,
        n_blocks: n_blocks as u32,
        side: side as u32,
        pool: memory.pool.ptr(),
        table: tables[side].ptr().cast(),
        params: memory.params.ptr().wrapping_add(side * params_bytes(n_blocks, N_HEAD_KV, D / GROUP)).cast(),
    });
    seconds(&[Op::Stores(&ops)], n_runs)
}
