//! Counts of what an access costs a GPU (`PMKVQ_PTX_REPORT=1`): conflicts of shared memory's banks, and sectors of global memory.

use crate::lanes::each;
use crate::program::Kernel;
use std::collections::BTreeMap;

/// Of an instruction, or of all of a kernel.
#[derive(Default, Clone, Copy)]
pub struct Cost {
    /// Accesses of warps to shared memory, the passes that they take at least, and those beyond.
    shared: u64,
    passes: u64,
    extra: u64,
    /// Accesses to global memory, their sectors of 32 bytes, and the fewest that hold as many bytes.
    global: u64,
    sectors: u64,
    least: u64,
}

impl Cost {
    fn add(&mut self, o: &Cost) {
        self.shared += o.shared;
        self.passes += o.passes;
        self.extra += o.extra;
        self.global += o.global;
        self.sectors += o.sectors;
        self.least += o.least;
    }
}

#[derive(Default)]
pub struct Counts {
    pub ctas: u64,
    pub instructions: u64,
    /// By the number of the instruction.
    by: BTreeMap<usize, Cost>,
}

impl Counts {
    /// 32 banks of four bytes; lanes with 8 bytes go by halves of a warp, with 16 by quarters.
    pub fn shared(&mut self, pc: usize, at: &[u64; 32], m: u32, bytes: usize) {
        let lanes = match bytes {
            8 => 16,
            16 => 8,
            _ => 32,
        };
        let cost = self.by.entry(pc).or_default();
        cost.shared += 1;
        for part in 0..32 / lanes {
            let mask = m & (u32::MAX >> (32 - lanes)) << (part * lanes);
            if mask == 0 {
                continue;
            }
            let mut words: Vec<u64> = Vec::with_capacity(32);
            for l in each(mask) {
                words.extend(at[l] / 4..(at[l] + bytes as u64).div_ceil(4));
            }
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u64; 32];
            words.iter().for_each(|w| banks[(*w % 32) as usize] += 1);
            cost.passes += 1;
            cost.extra += banks.iter().max().unwrap_or(&1) - 1;
        }
    }

    pub fn global(&mut self, pc: usize, at: &[u64; 32], m: u32, bytes: usize) {
        if m == 0 {
            return;
        }
        let mut sectors: Vec<u64> = Vec::with_capacity(64);
        let mut all: Vec<(u64, u64)> = Vec::with_capacity(32);
        for l in each(m) {
            sectors.extend(at[l] / 32..(at[l] + bytes as u64).div_ceil(32));
            all.push((at[l], bytes as u64));
        }
        sectors.sort_unstable();
        sectors.dedup();
        all.sort_unstable();
        all.dedup();
        let cost = self.by.entry(pc).or_default();
        cost.global += 1;
        cost.sectors += sectors.len() as u64;
        cost.least += all.iter().map(|x| x.1).sum::<u64>().div_ceil(32);
    }
}

/// Sums of all launches of a kernel, and by place.
#[derive(Default)]
struct Sums {
    launches: u64,
    ctas: u64,
    instructions: u64,
    all: Cost,
    by: BTreeMap<String, Cost>,
}

#[derive(Default)]
pub struct Report(BTreeMap<String, Sums>);

/// How many places a kernel's list has.
const PLACES: usize = 12;

impl Report {
    pub fn add(&mut self, kernel: &Kernel, counts: &Counts) {
        let sums = self.0.entry(kernel.name.clone()).or_default();
        sums.launches += 1;
        sums.ctas += counts.ctas;
        sums.instructions += counts.instructions;
        for (pc, cost) in &counts.by {
            sums.all.add(cost);
            sums.by.entry(kernel.place(*pc)).or_default().add(cost);
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::from(
            "shared memory: accesses, passes at least, passes beyond; global memory: accesses, sectors, the least\n",
        );
        let line = |c: &Cost| {
            format!("{:>9} {:>9} {:>9} | {:>9} {:>9} {:>9}", c.shared, c.passes, c.extra, c.global, c.sectors, c.least)
        };
        for (name, s) in &self.0 {
            out += &format!(
                "\n{name}: {} launches, {} CTAs, {} instructions of warps\n",
                s.launches, s.ctas, s.instructions
            );
            out += &format!("{} | all\n", line(&s.all));
            let mut places: Vec<_> = s.by.iter().filter(|(_, c)| c.extra > 0 || c.sectors > c.least).collect();
            places.sort_by_key(|(_, c)| std::cmp::Reverse(c.extra + c.sectors.saturating_sub(c.least)));
            for (place, c) in places.into_iter().take(PLACES) {
                out += &format!("{} | {place}\n", line(c));
            }
        }
        out
    }
}
