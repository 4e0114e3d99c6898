//! A warp: its registers, and where its lanes are.
//!
//! Lanes that are at the same instruction run it together, those with the smallest number first, so that branches join again. A lane
//! that comes to a collective instruction waits there for the others that it names.

use crate::copies::Copy;
use crate::exchange::same;
use crate::grid::Cta;
use crate::lanes::{bits, each};
use crate::program::{Ins, Kernel, Kind};
use crate::races::Who;
use crate::{code, fault, Done, Fault, Rng};

pub struct Warp {
    pub regs32: Vec<[u32; 32]>,
    pub regs64: Vec<[u64; 32]>,
    pub preds: Vec<u32>,
    /// Constants of the kernel.
    pub k32: *const [u32; 32],
    pub k64: *const [u64; 32],
    pub local: Vec<u64>,
    pub copies: Vec<Copy>,
    /// Groups of copies that each lane has committed.
    pub groups: [i64; 32],
    /// Lanes that have waited for the kernels before.
    pub waited: u32,
    /// In the CTA.
    pub number: u32,
    /// How many times the lanes have come together.
    syncs: u32,
    pub instructions: u64,
    rng: Rng,
    /// The instruction that it runs.
    pub pc: usize,
    pcs: [u32; 32],
    /// Lanes that can go on, and those that wait in a collective instruction. The others have ended.
    ready: u32,
    waiting: u32,
    pub exists: u32,
}

pub enum Stop {
    /// At a barrier: its number and for how many threads (0: all), and where.
    Barrier(i64, u32, usize),
    Turn,
    End,
}

impl Warp {
    pub fn new(k: &Kernel, number: u32) -> Warp {
        Warp {
            // what nobody has written is no number that a result could be right with
            regs32: vec![[0xffc0_dead; 32]; k.n32],
            regs64: vec![[0x7fff_dead_dead_dead; 32]; k.n64],
            preds: vec![0xa5a5_5a5a; k.n_pred],
            k32: k.k32.as_ptr(),
            k64: k.k64.as_ptr(),
            local: vec![0; k.local_bytes * 32 / 8],
            copies: Vec::new(),
            groups: [0; 32],
            waited: 0,
            number,
            syncs: 0,
            instructions: 0,
            rng: Rng(0),
            pc: 0,
            pcs: [0; 32],
            ready: 0,
            waiting: 0,
            exists: 0,
        }
    }

    /// For the next CTA: this many threads.
    pub fn begin(&mut self, threads: u32, seed: u64) {
        self.rng = Rng(seed);
        self.exists = if threads >= 32 { u32::MAX } else { (1 << threads) - 1 };
        (self.ready, self.waiting, self.waited) = (self.exists, 0, 0);
        self.pcs = [0; 32];
        self.groups = [0; 32];
        self.copies.clear();
    }

    pub fn who(&self, lane: usize) -> Who {
        Who { warp: self.number + 1, sync: self.syncs, lane: lane as u32 }
    }

    pub fn live(&self) -> u32 {
        self.ready | self.waiting
    }

    /// Runs until it has to wait, or for about n instructions. pc: where it is, for messages.
    pub fn run(&mut self, cta: &mut Cta, n: u64, pc: &mut usize) -> Result<Stop, Box<Fault>> {
        let kernel = cta.kernel.clone();
        let code = &kernel.code[..];
        let turn = self.instructions + n;
        'choose: loop {
            if self.ready == 0 {
                if self.waiting == 0 {
                    return Ok(Stop::End);
                }
                return self.stuck(&kernel, pc);
            }
            // the lanes that are behind all others; stop: where the next ones are
            *pc = each(self.ready).map(|l| self.pcs[l]).min().unwrap_or(0) as usize;
            let mut active = bits(|l| self.pcs[l] == *pc as u32) & self.ready;
            let mut stop = each(self.ready & !active).map(|l| self.pcs[l]).min().unwrap_or(u32::MAX) as usize;
            let mut end = turn;
            // lanes need not stay together: sometimes a part of them goes ahead, but not where accesses are counted
            if cta.counts.is_none() && self.rng.below(4) == 0 {
                let part = active & self.rng.draw() as u32;
                if part != 0 && part != active {
                    active = part;
                    stop = usize::MAX;
                    end = end.min(self.instructions + 1 + self.rng.draw() % 64);
                }
            }
            loop {
                if *pc >= stop || self.instructions >= end {
                    self.set_pcs(active, *pc as u32);
                    if self.instructions >= turn {
                        return Ok(Stop::Turn);
                    }
                    continue 'choose;
                }
                let Some(ins) = code.get(*pc) else { return fault(code::LAUNCH_FAILURE, "runs beyond its end") };
                self.instructions += 1;
                self.pc = *pc;
                let m = match ins.guard {
                    0 => active,
                    p if p > 0 => active & self.pred(p - 1),
                    p => active & !self.pred(-p - 1),
                };
                match ins.kind {
                    Kind::Plain => {
                        if m != 0 {
                            (ins.run)(self, cta, ins, m)?;
                        }
                        *pc += 1;
                    }
                    Kind::Branch => {
                        if m == active {
                            *pc = ins.imm as usize;
                        } else if m == 0 {
                            *pc += 1;
                        } else {
                            self.set_pcs(m, ins.imm as u32);
                            self.set_pcs(active & !m, *pc as u32 + 1);
                            continue 'choose;
                        }
                    }
                    Kind::Table => {
                        let (table, at) = (&kernel.tables[ins.imm as usize], *self.r32(ins.a));
                        for l in each(active) {
                            let Some(to) = table.get(at[l] as usize) else {
                                return fault(code::LAUNCH_FAILURE, "jumps to behind the end of a table");
                            };
                            self.pcs[l] = *to;
                        }
                        continue 'choose;
                    }
                    Kind::Exit => {
                        self.set_pcs(active & !m, *pc as u32 + 1);
                        self.ready &= !m;
                        self.wake(code);
                        continue 'choose;
                    }
                    kind => {
                        // the usual case: the whole warp is here
                        if m == u32::MAX && (kind == Kind::Aligned || kind == Kind::Sync && self.r32(ins.c) == &[m; 32])
                        {
                            (ins.run)(self, cta, ins, m)?;
                            *pc += 1;
                            continue;
                        }
                        // lanes without the predicate go on
                        self.set_pcs(active & !m, *pc as u32 + 1);
                        if m == 0 {
                            *pc += 1;
                            continue;
                        }
                        if m != active {
                            self.set_pcs(m, *pc as u32);
                            active = m;
                        }
                        let all = self.gather(&kernel, ins, kind, active, *pc)?;
                        if all == 0 {
                            self.set_pcs(active, *pc as u32);
                            self.ready &= !active;
                            self.waiting |= active;
                            continue 'choose;
                        }
                        if kind == Kind::Barrier {
                            self.arrive(all);
                            return Ok(Stop::Barrier(ins.imm, ins.b as u32, *pc));
                        }
                        if kind == Kind::WarpSync {
                            self.syncs += 1;
                        } else {
                            (ins.run)(self, cta, ins, all)?;
                        }
                        self.arrive(all);
                        continue 'choose;
                    }
                }
            }
        }
    }

    fn set_pcs(&mut self, m: u32, pc: u32) {
        for l in 0..32 {
            self.pcs[l] = if m >> l & 1 != 0 { pc } else { self.pcs[l] };
        }
    }

    /// Lanes of a collective instruction go on behind it.
    fn arrive(&mut self, m: u32) {
        self.waiting &= !m;
        self.ready |= m;
        for l in each(m) {
            self.pcs[l] += 1;
        }
    }

    /// The lanes that an instruction is for, if all of them are there; 0: some are still to come.
    fn gather(&mut self, k: &Kernel, ins: &Ins, kind: Kind, active: u32, pc: usize) -> Result<u32, Box<Fault>> {
        self.set_pcs(active, pc as u32);
        let members = match kind {
            Kind::Sync | Kind::WarpSync => {
                let v = self.r32(ins.c);
                let members = v[active.trailing_zeros() as usize];
                if same(v, active) != active {
                    // lanes of several groups: one group after another
                    return fault(code::LAUNCH_FAILURE, "lanes at one instruction name different members");
                }
                if active & !members != 0 {
                    return fault(
                        code::LAUNCH_FAILURE,
                        format!("lanes {:#x} are not in the mask {members:#x}", active & !members),
                    );
                }
                members
            }
            Kind::Barrier => self.live(),
            _ => u32::MAX,
        };
        let gone = members & !self.live();
        if gone != 0 {
            return fault(
                code::LAUNCH_FAILURE,
                format!("lanes {gone:#x} that are waited for have ended, or there are none"),
            );
        }
        let here = match kind {
            Kind::WarpSync => {
                bits(|l| k.code.get(self.pcs[l] as usize).is_some_and(|i| i.kind == Kind::WarpSync)) & self.waiting
            }
            _ => bits(|l| self.pcs[l] == pc as u32) & self.waiting,
        };
        Ok(if (here | active) & members == members { members } else { 0 })
    }

    /// A lane has ended: who waits for all lanes at a barrier looks again.
    fn wake(&mut self, code: &[Ins]) {
        let m = bits(|l| code.get(self.pcs[l] as usize).is_some_and(|i| i.kind == Kind::Barrier)) & self.waiting;
        self.waiting &= !m;
        self.ready |= m;
    }

    /// All lanes wait, but not at the same place.
    fn stuck(&self, k: &Kernel, pc: &mut usize) -> Result<Stop, Box<Fault>> {
        let mut places: Vec<(u32, u32)> = Vec::new();
        for l in each(self.waiting) {
            match places.iter_mut().find(|p| p.0 == self.pcs[l]) {
                Some(p) => p.1 |= 1 << l,
                None => places.push((self.pcs[l], 1 << l)),
            }
        }
        *pc = places[0].0 as usize;
        let at: Vec<String> =
            places.iter().map(|(pc, m)| format!("lanes {m:#x} wait in {}", k.at(*pc as usize))).collect();
        let ended = self.exists & !self.live();
        let ended = if ended != 0 { format!("; lanes {ended:#x} have ended") } else { String::new() };
        fault(code::TIMEOUT, format!("a deadlock of warp {}: {}{ended}", self.number, at.join("; ")))
    }
}

pub fn trap(_: &mut Warp, _: &mut Cta, _: &Ins, _: u32) -> Done {
    fault(code::LAUNCH_FAILURE, "a trap")
}

pub fn wait_before(w: &mut Warp, _: &mut Cta, _: &Ins, m: u32) -> Done {
    w.waited |= m;
    Ok(())
}
