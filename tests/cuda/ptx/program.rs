//! A kernel as it is run: instructions with their operands' places.

use crate::decode::Decoder;
use crate::module::Module;
use crate::text::{Body, Place, Variable};
use crate::warp::Warp;
use crate::{allocate, grid::Cta, text, Done};
use std::collections::HashMap;

/// Runs an instruction for the lanes of a mask.
pub type Run = fn(&mut Warp, &mut Cta, &Ins, u32) -> Done;

/// A function for a map of `lanes.rs`.
#[macro_export]
macro_rules! run {
    ($map:ident, $f:expr) => {
        (|w: &mut $crate::warp::Warp, _: &mut $crate::grid::Cta, i: &$crate::program::Ins, m: u32| {
            w.$map(i, m, $f);
            Ok(())
        }) as $crate::program::Run
    };
}

/// A function of the warp alone.
#[macro_export]
macro_rules! act {
    (|$w:ident, $i:ident, $m:ident| $e:expr) => {
        (|$w: &mut $crate::warp::Warp, _: &mut $crate::grid::Cta, $i: &$crate::program::Ins, $m: u32| {
            $e;
            Ok(())
        }) as $crate::program::Run
    };
}

/// Where an operand is: a register of a warp, or below zero a constant of the kernel.
pub type Reg = i32;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Plain,
    /// To `imm`.
    Branch,
    /// To the `a`th of the table `imm`.
    Table,
    Exit,
    /// All lanes in the mask in operand `c` come to this instruction.
    Sync,
    /// The same, and they may be at different ones.
    WarpSync,
    /// All of the warp's lanes come to this instruction.
    Aligned,
    /// All of the CTA's threads come to a barrier: number `imm`, for as many threads as `b` says, or all of them.
    Barrier,
}

#[derive(Clone, Copy)]
pub struct Ins {
    pub run: Run,
    pub kind: Kind,
    /// Of its value: how wide an element of memory is, and how many there are.
    pub size: u8,
    pub count: u8,
    /// Its predicate's number plus one, negative if it must be false; 0: none.
    pub guard: i32,
    pub d: Reg,
    pub a: Reg,
    pub b: Reg,
    pub c: Reg,
    /// Where more registers begin in `Kernel::lists`.
    pub list: u32,
    pub imm: i64,
    pub place: Place,
}

pub struct Kernel {
    pub name: String,
    pub code: Vec<Ins>,
    pub ops: Vec<String>,
    pub lists: Vec<Reg>,
    pub tables: Vec<Vec<u32>>,
    pub k32: Vec<[u32; 32]>,
    pub k64: Vec<[u64; 32]>,
    /// Registers of 32 and 64 bits, and predicates.
    pub n32: usize,
    pub n64: usize,
    pub n_pred: usize,
    pub params: Vec<Variable>,
    pub param_bytes: usize,
    pub shared_bytes: usize,
    pub local_bytes: usize,
    pub files: HashMap<u32, String>,
    pub callers: HashMap<Place, Place>,
}

/// Where variables lie, and how many bytes all of them take; one of `.extern` lies behind all others.
pub fn place(variables: &[Variable]) -> (HashMap<String, usize>, usize) {
    let (mut at, mut places) = (0usize, HashMap::new());
    let mut sorted: Vec<&Variable> = variables.iter().collect();
    sorted.sort_by_key(|v| v.size.is_none());
    for v in sorted {
        at = at.next_multiple_of(v.align.max(1));
        places.insert(v.name.clone(), at);
        at += v.size.unwrap_or(0);
    }
    (places, at)
}

impl Kernel {
    pub fn new(module: &Module, name: &str) -> Result<Kernel, String> {
        let entry = module.entries.get(name).ok_or_else(|| format!("there is no kernel {name}"))?;
        let body: Body = text::body(entry)?;
        // shared variables that the kernel names
        let named = |v: &&Variable| entry_uses(entry, &v.name);
        let mut shared: Vec<Variable> = module.shared.iter().filter(named).cloned().collect();
        shared.extend(body.shared.iter().cloned());
        let mut decoder = Decoder::new(&body, &shared);
        let first = decoder.decode()?;
        let slots = allocate::slots(&decoder, &first);
        let code = decoder.place(slots)?;
        Ok(Kernel {
            name: name.to_string(),
            code,
            ops: body.statements.iter().map(|s| s.op.clone()).collect(),
            lists: decoder.lists,
            tables: decoder.tables,
            k32: decoder.k32.iter().map(|x| [*x; 32]).collect(),
            k64: decoder.k64.iter().map(|x| [*x; 32]).collect(),
            n32: decoder.n32.max(1),
            n64: decoder.n64.max(1),
            n_pred: decoder.n_pred.max(1),
            param_bytes: place(&body.params).1,
            shared_bytes: place(&shared).1,
            local_bytes: place(&body.local).1.next_multiple_of(16),
            params: body.params,
            files: module.files.clone(),
            callers: body.callers,
        })
    }

    /// An instruction and where it stands, with who called the function, for people.
    pub fn place(&self, pc: usize) -> String {
        let mut text = format!("{} at", self.ops.get(pc).map_or("the end", |s| s.as_str()));
        let mut place = self.code.get(pc).map(|i| i.place);
        for _ in 0..8 {
            let Some(at) = place else { break };
            let file = self.files.get(&at.0).map_or("?", |f| f.as_str());
            text += &format!(" {file}:{}", at.1);
            place = self.callers.get(&at).copied().filter(|p| *p != at);
        }
        text
    }

    pub fn at(&self, pc: usize) -> String {
        self.place(pc) + " in " + &self.name
    }
}

/// Whether the kernel that begins here names it, before the next one.
fn entry_uses(entry: &str, name: &str) -> bool {
    let end = entry.find("\n.visible .entry").or(entry.find("\n.entry")).unwrap_or(entry.len());
    entry[..end].contains(name)
}
