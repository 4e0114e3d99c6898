//! Random walks over sequences: decode, roll back, copy, keep, clear, shift positions, save and restore. A plain cache of
//! 32-bit floats goes the same way.
//!
//! What the plan's widths explain is measured, not assumed: the same plan, and a static one of its final widths, decode one
//! text into a full cache.

use super::common::*;
use pmkvq::ffi::{describe_model, BatchToken, Cache, Context, Model};
use pmkvq::geometry::Width;
use pmkvq::kernels::RangeRule;
use pmkvq::plan::{Initial, Plan, Ranges};
use pmkvq::transform::TransformsFile;

const N_CTX: u32 = 1024;
const N_SEQ: usize = 4;

/// Token cells as llama.cpp's unified cache has them.
#[derive(Default)]
struct Cells(Vec<(i32, [bool; N_SEQ])>);

impl Cells {
    fn free(&self) -> usize {
        N_CTX as usize - self.0.len()
    }

    fn next(&self, seq: usize) -> i32 {
        self.0.iter().filter(|c| c.1[seq]).map(|c| c.0 + 1).max().unwrap_or(0)
    }

    fn remove(&mut self, seq: usize, range: std::ops::Range<i32>) {
        for c in &mut self.0 {
            c.1[seq] &= !range.contains(&c.0);
        }
        self.0.retain(|c| c.1.contains(&true));
    }
}

struct Walk<'a, 'm> {
    ours: Context<'m>,
    oracle: Context<'m>,
    cells: Cells,
    text: &'a [i32],
    n_vocab: usize,
    saved: Vec<Saved>,
    /// Sequences whose cells the last step moved, or replaced by a state's.
    replaced: [bool; N_SEQ],
    /// Divergence of each decoded token.
    kl: Vec<f64>,
}

/// A state of one sequence, or of all, in both contexts.
struct Saved {
    of_all: bool,
    ours: Vec<u8>,
    oracle: Vec<u8>,
    /// The cells in it.
    cells: Vec<(i32, [bool; N_SEQ])>,
}

impl Walk<'_, '_> {
    fn save(&mut self, seq: usize, of_all: bool) {
        let of = (!of_all).then_some(seq as i32);
        let cells = self.cells.0.iter().filter(|c| of_all || c.1[seq]).copied().collect();
        let (ours, oracle) = (self.ours.state(of).unwrap(), self.oracle.state(of).unwrap());
        self.saved.push(Saved { of_all, ours, oracle, cells });
    }

    fn restore(&mut self, which: usize, seq: usize) {
        let saved = &self.saved[which];
        self.replaced = std::array::from_fn(|s| saved.of_all || s == seq);
        let mut after = Cells(if saved.of_all { Vec::new() } else { std::mem::take(&mut self.cells.0) });
        after.remove(seq, 0..i32::MAX);
        if after.0.len() + saved.cells.len() > N_CTX as usize {
            self.cells = after;
            self.both(|c| assert!(c.seq_rm(seq as i32, -1, -1)));
            return;
        }
        for &(pos, seqs) in &saved.cells {
            let only = std::array::from_fn(|s| s == seq);
            after.0.push((pos, if saved.of_all { seqs } else { only }));
        }
        let of = (!saved.of_all).then_some(seq as i32);
        self.ours.set_state(&saved.ours, of).unwrap();
        self.oracle.set_state(&saved.oracle, of).unwrap();
        self.cells = after;
    }

    fn decode(&mut self, batch: &[BatchToken], seed: u64) {
        self.oracle.decode_batch(batch).unwrap_or_else(|e| panic!("seed {seed}: f32: {e}"));
        self.ours.decode_batch(batch).unwrap_or_else(|e| panic!("seed {seed}: plan: {e}"));
        for t in batch {
            let mut seqs = [false; N_SEQ];
            seqs[t.seq as usize] = true;
            self.cells.0.push((t.pos, seqs));
        }
        let (want, got) = (log_probs(&self.oracle, batch.len()), log_probs(&self.ours, batch.len()));
        self.kl.extend(divergences(&want, &got, self.n_vocab));
    }

    /// What a sequence would say next; the cache is as before afterwards, unless something had to shrink.
    fn probe(&mut self, seq: usize) -> Option<Vec<f32>> {
        let pos = self.cells.next(seq);
        if pos == 0 || self.cells.free() == 0 {
            return None;
        }
        self.ours.decode(&self.text[..1], pos, seq as i32).unwrap();
        let said = log_probs(&self.ours, 1);
        assert!(self.ours.seq_rm(seq as i32, pos, -1));
        Some(said)
    }

    fn both(&mut self, f: impl Fn(&mut Context)) {
        f(&mut self.ours);
        f(&mut self.oracle);
    }

    fn step(&mut self, rng: &mut Rng, seed: u64) {
        let seq = rng.below(N_SEQ);
        let next = self.cells.next(seq);
        self.replaced = [false; N_SEQ];
        match rng.below(30) {
            0..=13 => {
                let most = rng.pick(&[20, 200, 500]);
                let n = (1 + rng.below(most)).min(self.cells.free());
                let at = rng.below(self.text.len() - n);
                let batch: Vec<BatchToken> = (0..n)
                    .map(|i| BatchToken { token: self.text[at + i], pos: next + i as i32, seq: seq as i32 })
                    .collect();
                if n > 0 {
                    self.decode(&batch, seed);
                }
            }
            // several sequences in one batch
            14..=17 => {
                let n = (1 + rng.below(20)).min(self.cells.free() / N_SEQ);
                let at = rng.below(self.text.len() - n.max(1));
                let batch: Vec<BatchToken> = (0..n)
                    .flat_map(|i| (0..N_SEQ).map(move |s| (i, s)))
                    .map(|(i, s)| BatchToken {
                        token: self.text[at + i],
                        pos: self.cells.next(s) + i as i32,
                        seq: s as i32,
                    })
                    .collect();
                if n > 0 {
                    self.decode(&batch, seed);
                }
            }
            // a tail is rolled back
            18..=19 if next > 0 => {
                let from = next - 1 - rng.below(next.min(200) as usize) as i32;
                self.cells.remove(seq, from..i32::MAX);
                self.both(|c| assert!(c.seq_rm(seq as i32, from, -1)));
            }
            // something in the middle is forgotten
            20..=21 if next > 2 => {
                let from = rng.below(next as usize - 1) as i32;
                let to = (from + 1 + rng.below(100) as i32).min(next - 1);
                if from < to {
                    self.cells.remove(seq, from..to);
                    self.both(|c| assert!(c.seq_rm(seq as i32, from, to)));
                }
            }
            // a sequence goes on from where another is
            22 => {
                let to = (seq + 1 + rng.below(N_SEQ - 1)) % N_SEQ;
                self.cells.remove(to, 0..i32::MAX);
                for c in &mut self.cells.0 {
                    c.1[to] = c.1[seq];
                }
                self.both(|c| {
                    assert!(c.seq_rm(to as i32, -1, -1));
                    c.seq_cp(seq as i32, to as i32, -1, -1);
                });
            }
            // the middle is forgotten and what follows moves up, as when a context is full
            24..=25 if next > 20 => {
                let from = 1 + rng.below(next as usize / 2) as i32;
                let n = 1 + rng.below(((next - from) as usize).min(100) - 1) as i32;
                // cells that others share would move for them, too
                if self.cells.0.iter().all(|c| !c.1[seq] || c.1.iter().filter(|s| **s).count() == 1) {
                    self.replaced[seq] = true;
                    self.cells.remove(seq, from..from + n);
                    for c in self.cells.0.iter_mut().filter(|c| c.1[seq] && c.0 >= from + n) {
                        c.0 -= n;
                    }
                    self.both(|c| {
                        assert!(c.can_shift());
                        assert!(c.seq_rm(seq as i32, from, from + n));
                        c.seq_add(seq as i32, from + n, -1, -n);
                    });
                    // a plain cache forgets a shift that no batch has carried out when it is saved
                    self.decode(&[BatchToken { token: self.text[0], pos: next - n, seq: seq as i32 }], seed);
                }
            }
            26 if next > 0 => self.save(seq, rng.chance(30)),
            27..=28 if !self.saved.is_empty() => {
                let which = rng.below(self.saved.len());
                self.restore(which, seq);
            }
            _ => match rng.below(3) {
                0 => {
                    for other in (0..N_SEQ).filter(|s| *s != seq) {
                        self.cells.remove(other, 0..i32::MAX);
                    }
                    self.both(|c| c.seq_keep(seq as i32));
                }
                1 => {
                    self.cells.0.clear();
                    self.both(|c| c.clear());
                }
                _ => {
                    self.cells.remove(seq, 0..i32::MAX);
                    self.both(|c| assert!(c.seq_rm(seq as i32, -1, -1)));
                }
            },
        }
    }
}

/// A plan with the given final widths and a budget of `extra` bytes over the least.
fn mixed(widths: &mut dyn FnMut() -> Width, extra: u64) -> Temporary {
    let uniform = plan(&model_path(), N_CTX, &["--uniform", "2", "--parallel", "4"]);
    let mut plan = Plan::load(&uniform.0).unwrap();
    for layer in &mut plan.layers {
        (layer.k, layer.v) = (widths(), widths());
    }
    // the paper's ranges, no transforms; `with_transforms` has the others
    plan.ranges = Default::default();
    plan.budget_bytes = plan.layout().least_budget() + extra + on_device();
    let file = Temporary::new("json");
    std::fs::write(&file.0, plan.to_json()).unwrap();
    file
}

/// The largest mean divergence of a step while one sequence fills the whole cache, with a plan and with a static one of the
/// same final widths.
fn explained(model: &Model, plan: &Temporary, text: &[i32]) -> f64 {
    let mut fixed = Plan::load(&plan.0).unwrap();
    fixed.initial = Initial::Final;
    let file = Temporary::new("json");
    std::fs::write(&file.0, fixed.to_json()).unwrap();
    error_of(model, plan, text).max(error_of(model, &file, text))
}

fn error_of(model: &Model, plan: &Temporary, text: &[i32]) -> f64 {
    let mut ours = context(model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, N_SEQ as u32, 512));
    let mut oracle = oracle(model, &sizes(N_CTX, N_SEQ as u32, 512));
    let mut most = 0f64;
    for (i, chunk) in text[..N_CTX as usize].chunks(64).enumerate() {
        ours.decode(chunk, 64 * i as i32, 0).unwrap();
        oracle.decode(chunk, 64 * i as i32, 0).unwrap();
        let (want, got) = (log_probs(&oracle, chunk.len()), log_probs(&ours, chunk.len()));
        most = most.max(mean(&divergences(&want, &got, model.n_vocab())));
    }
    most
}

/// Returns the shrinks that the walk led to.
fn walk(seed: u64, rng: &mut Rng, plan: &Temporary, exact: bool) -> [u64; 4] {
    let model = shipped();
    let text = text(&model, 60_000 + 1000 * rng.below(100), 4000);
    let explained = explained(&model, plan, &text);
    let sizes = sizes(N_CTX, N_SEQ as u32, rng.pick(&[17, 64, 512]));
    let mut walk = Walk {
        ours: context(&model, &Cache::Plan(plan.0.clone()), &sizes),
        oracle: oracle(&model, &sizes),
        cells: Cells::default(),
        text: &text,
        n_vocab: model.n_vocab(),
        saved: Vec::new(),
        replaced: [false; N_SEQ],
        kl: Vec::new(),
    };
    for step in 0..80 {
        let other = rng.below(N_SEQ);
        let (next, cells_before) = (walk.cells.next(other), walk.cells.0.iter().filter(|c| c.1[other]).count());
        let before = walk.probe(other).map(|said| (said, shrinks(&walk.ours)));
        walk.step(rng, seed);
        let same = walk.cells.next(other) == next && walk.cells.0.iter().filter(|c| c.1[other]).count() == cells_before;
        if let (Some((said, shrunk)), true) = (before, same && !walk.replaced[other]) {
            let after = walk.probe(other);
            // a shrink is reported; without one nothing that this sequence reads has moved
            if let (Some(after), true) = (after, shrinks(&walk.ours) == shrunk) {
                let moved = mean(&divergences(&said, &after, walk.n_vocab));
                assert!(moved < 1e-6, "seed {seed}, step {step}: sequence {other} moved by {moved} with no shrink");
            }
        }
    }
    let kl = mean(&walk.kl);
    println!(
        "seed {seed}: {} tokens, mean divergence {kl:.2e}, explained {explained:.2e}, {:?}",
        walk.kl.len(),
        shrinks(&walk.ours)
    );
    assert!(kl <= 2.0 * explained + 1e-6, "seed {seed}: mean divergence {kl}, but the widths explain {explained}");
    if exact {
        let worst = walk.kl.iter().copied().fold(0.0, f64::max);
        assert!(worst < 1e-3, "seed {seed}: one token diverges by {worst}");
    }
    shrinks(&walk.ours)
}

#[test]
fn at_16_bits_every_token_agrees() {
    let plan = mixed(&mut || Width::B16, 0);
    seeds(100, 6, |seed, rng| {
        assert_eq!(walk(seed, rng, &plan, true), [0; 4], "seed {seed}: no block of 16 bits shrinks")
    });
}

#[test]
fn at_8_bits_the_error_is_that_of_8_bits() {
    let plan = mixed(&mut || Width::B8, 0);
    let mut shrunk = 0;
    seeds(200, 6, |seed, rng| shrunk += walk(seed, rng, &plan, false)[0]);
    assert!(shrunk > 0, "nothing shrank, so nothing was tested");
}

/// As users have it: the shipped transforms, fitted ranges.
#[test]
fn transforms_and_fitted_ranges_walk_as_well() {
    let shape = describe_model(&model_path()).unwrap().shape;
    let file = model_path().with_file_name("transforms.json");
    let transforms = TransformsFile::load(&file, &shape, None).unwrap().layers;
    let mut shrunk = [0; 4];
    seeds(400, 6, |seed, rng| {
        let file = mixed(&mut || rng.pick(&[Width::B8, Width::B4, Width::B2]), 0);
        let mut plan = Plan::load(&file.0).unwrap();
        plan.transforms = Some(transforms.clone());
        plan.ranges = Ranges { k: RangeRule::Fit, v: RangeRule::Fit };
        plan.budget_bytes += plan.transform_bytes();
        std::fs::write(&file.0, plan.to_json()).unwrap();
        for (sum, n) in shrunk.iter_mut().zip(walk(seed, rng, &file, false)) {
            *sum += n;
        }
    });
    if std::env::var_os("PMKVQ_SEED").is_none() {
        assert!(shrunk.iter().all(|n| *n > 0), "not every kind of shrink was walked through: {shrunk:?}");
    }
}

#[test]
fn mixed_widths_are_no_worse_than_the_widths_explain() {
    let mut shrunk = [0; 4];
    seeds(300, 12, |seed, rng| {
        let extra = rng.pick(&[0, 0, 60_000]);
        let plan = mixed(&mut || rng.pick(&[Width::B16, Width::B8, Width::B4, Width::B2]), extra);
        for (sum, n) in shrunk.iter_mut().zip(walk(seed, rng, &plan, false)) {
            *sum += n;
        }
    });
    if std::env::var_os("PMKVQ_SEED").is_none() {
        assert!(shrunk.iter().all(|n| *n > 0), "not every kind of shrink was walked through: {shrunk:?}");
    }
}
