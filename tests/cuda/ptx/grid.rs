//! A launch: CTAs one after another in a random order, the warps of one in turns of random length.

use crate::memory::Memory;
use crate::program::Kernel;
use crate::report::Counts;
use crate::shared::Shared;
use crate::warp::{Stop, Warp};
use crate::{code, fault, Done, Fault, Rng};
use std::sync::Arc;

/// More instructions of a CTA than this are taken for a loop without an end.
const LIMIT: u64 = 1 << 31;

pub struct Launch {
    pub kernel: Arc<Kernel>,
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic: usize,
    /// It may begin before the kernels before it have ended.
    pub early: bool,
    /// Reading shared memory that was never written is an error.
    pub strict: bool,
}

/// What the warps of a CTA share.
pub struct Cta {
    pub kernel: Arc<Kernel>,
    pub params: Vec<u8>,
    pub memory: Memory,
    pub shared: Shared,
    pub index: [u32; 3],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub early: bool,
    pub counts: Option<Box<Counts>>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    Barrier(i64, u32, usize),
    Ended,
}

/// Runs it. The counts of a launch that did not fail are given back.
pub fn run(launch: Launch, memory: &Memory, rng: &mut Rng, count: bool) -> Result<Option<Box<Counts>>, Box<Fault>> {
    let (kernel, grid) = (launch.kernel.clone(), launch.grid);
    let threads: u32 = launch.block.iter().product();
    let mut cta = Cta {
        shared: Shared::new(kernel.shared_bytes + launch.dynamic, launch.strict),
        kernel: kernel.clone(),
        params: launch.params,
        memory: memory.clone(),
        index: [0; 3],
        grid,
        block: launch.block,
        early: launch.early,
        counts: count.then(Default::default),
    };
    let mut warps: Vec<Warp> = (0..threads.div_ceil(32)).map(|n| Warp::new(&kernel, n)).collect();
    let n: u64 = grid.iter().map(|x| *x as u64).product();
    let mut order: Vec<u64> = (0..n).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i + 1));
    }
    for at in order {
        let (x, y) = (grid[0] as u64, grid[1] as u64);
        cta.index = [(at % x) as u32, (at / x % y) as u32, (at / x / y) as u32];
        cta.shared.begin();
        run_cta(&mut cta, &mut warps, threads, rng)?;
    }
    if let Some(counts) = &mut cta.counts {
        counts.instructions = warps.iter().map(|w| w.instructions).sum();
        counts.ctas = n;
    }
    Ok(cta.counts)
}

fn run_cta(cta: &mut Cta, warps: &mut [Warp], threads: u32, rng: &mut Rng) -> Done {
    for (n, w) in warps.iter_mut().enumerate() {
        w.begin(threads - 32 * n as u32, rng.draw());
    }
    let mut states = vec![State::Ready; warps.len()];
    let began: u64 = warps.iter().map(|w| w.instructions).sum();
    let mut ready: Vec<usize> = (0..warps.len()).collect();
    while !ready.is_empty() {
        let pick = rng.below(ready.len());
        let n = ready[pick];
        // turns of all lengths, short ones more often
        let turn = 1 + rng.draw() % (1 << (rng.draw() % 14));
        let mut pc = 0;
        let stop = warps[n].run(cta, turn, &mut pc);
        let stop = stop
            .or_else(|e| fault(e.code, format!("{}, warp {n}, CTA {:?}: {}", cta.kernel.at(pc), cta.index, e.text)))?;
        states[n] = match stop {
            Stop::Turn => {
                let now: u64 = warps.iter().map(|w| w.instructions).sum();
                if now - began > LIMIT {
                    return fault(
                        code::TIMEOUT,
                        format!("{}, CTA {:?}: more than {LIMIT} instructions", cta.kernel.at(pc), cta.index),
                    );
                }
                continue;
            }
            Stop::Barrier(id, count, pc) => State::Barrier(id, count, pc),
            Stop::End => State::Ended,
        };
        ready.swap_remove(pick);
        release(cta, warps, &mut states, &mut ready);
    }
    if let Some(n) = states.iter().position(|s| *s != State::Ended) {
        let State::Barrier(id, _, pc) = states[n] else { return Ok(()) };
        let text = format!(
            "{}, CTA {:?}: a deadlock: warp {n} waits at barrier {id}, and others never come",
            cta.kernel.at(pc),
            cta.index
        );
        return fault(code::TIMEOUT, text);
    }
    if cta.early && warps.iter().all(|w| w.waited == 0) {
        return fault(
            code::LAUNCH_FAILURE,
            format!("{}, CTA {:?}: ends without griddepcontrol.wait", cta.kernel.name, cta.index),
        );
    }
    Ok(())
}

/// Warps at a barrier go on if all have come.
fn release(cta: &mut Cta, warps: &[Warp], states: &mut [State], ready: &mut Vec<usize>) {
    for n in 0..states.len() {
        let State::Barrier(id, count, _) = states[n] else { continue };
        let here: Vec<usize> =
            (0..states.len()).filter(|i| matches!(states[*i], State::Barrier(x, ..) if x == id)).collect();
        let all = (0..states.len()).filter(|i| states[*i] != State::Ended).count();
        let whole = here.len() == all;
        let come: u32 = here.iter().map(|i| warps[*i].exists.count_ones()).sum();
        if count == 0 && whole || count != 0 && come >= count {
            for i in here {
                states[i] = State::Ready;
                ready.push(i);
            }
            if whole {
                cta.shared.races.pass_barrier();
            } else {
                cta.shared.races.pass_part();
            }
        }
    }
}
