//! Statements become instructions: which function runs one, and where its operands are.
//!
//! It is done twice: at first every register has a place of its own, and who reads and writes it is noted; then each has the place that
//! it was given.

use crate::program::{place, Ins, Reg};
use crate::text::{Arg, Body, Variable};
use std::collections::HashMap;

/// An opcode in parts: `add.ftz.f32` is add, [ftz, f32]. ty: the last part.
pub struct Op<'a> {
    pub name: &'a str,
    pub mods: Vec<&'a str>,
    pub ty: &'a str,
}

impl Op<'_> {
    pub fn has(&self, m: &str) -> bool {
        self.mods.contains(&m)
    }

    /// Nothing stands before the type but these.
    pub fn only(&self, known: &[&str]) -> bool {
        self.mods.iter().rev().skip(1).all(|m| known.contains(m))
    }

    pub fn bits(&self) -> u32 {
        type_bits(self.ty)
    }

    pub fn is(&self, first: &[&str]) -> bool {
        self.mods.len() >= first.len() && self.mods[..first.len()] == *first
    }
}

/// 0: no type.
pub fn type_bits(ty: &str) -> u32 {
    if ty == "f16x2" {
        return 32;
    }
    ty.strip_prefix(['b', 'u', 's', 'f']).and_then(|s| s.parse().ok()).unwrap_or(0)
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Class {
    Pred,
    Word,
    Long,
}

#[derive(Clone, Copy)]
pub struct Register {
    pub class: Class,
    pub bits: u32,
    /// Among all of its class.
    pub id: u32,
}

/// Registers that an instruction reads and writes.
#[derive(Default)]
pub struct Uses {
    pub reads: Vec<(Class, u32)>,
    pub writes: Vec<(Class, u32)>,
}

/// What the second pass knows: places of words and longs.
pub struct Slots {
    pub words: Vec<u32>,
    pub longs: Vec<u32>,
    pub n_words: usize,
    pub n_longs: usize,
}

pub struct Decoder<'a> {
    pub body: &'a Body,
    pub lists: Vec<Reg>,
    pub tables: Vec<Vec<u32>>,
    pub k32: Vec<u32>,
    pub k64: Vec<u64>,
    pub n32: usize,
    pub n64: usize,
    pub n_pred: usize,
    pub uses: Vec<Uses>,
    pub registers: HashMap<&'a str, Register>,
    found32: HashMap<u32, Reg>,
    found64: HashMap<u64, Reg>,
    shared: HashMap<String, usize>,
    local: HashMap<String, usize>,
    params: HashMap<String, usize>,
    slots: Option<Slots>,
    now: Uses,
}

pub type Made<T> = Result<T, String>;

impl<'a> Decoder<'a> {
    pub fn new(body: &'a Body, shared: &[Variable]) -> Decoder<'a> {
        let (mut registers, mut n) = (HashMap::new(), [0u32; 3]);
        for (name, kind) in &body.registers {
            let (class, bits) = match type_bits(kind) {
                0 => (Class::Pred, 1),
                64 => (Class::Long, 64),
                bits => (Class::Word, bits),
            };
            registers.insert(name.as_str(), Register { class, bits, id: n[class as usize] });
            n[class as usize] += 1;
        }
        Decoder {
            body,
            lists: Vec::new(),
            tables: Vec::new(),
            k32: Vec::new(),
            k64: Vec::new(),
            n32: n[Class::Word as usize] as usize,
            n64: n[Class::Long as usize] as usize,
            n_pred: n[Class::Pred as usize] as usize,
            uses: Vec::new(),
            registers,
            found32: HashMap::new(),
            found64: HashMap::new(),
            shared: place(shared).0,
            local: place(&body.local).0,
            params: place(&body.params).0,
            slots: None,
            now: Uses::default(),
        }
    }

    pub fn decode(&mut self) -> Made<Vec<Ins>> {
        self.lists.clear();
        self.tables.clear();
        self.uses.clear();
        let body = self.body;
        let mut code = Vec::with_capacity(body.statements.len());
        for s in &body.statements {
            let ins = self.statement(s).map_err(|e| format!("{} {:?} (line {}): {e}", s.op, s.args, s.place.1))?;
            code.push(ins);
            self.uses.push(std::mem::take(&mut self.now));
        }
        Ok(code)
    }

    pub fn place(&mut self, slots: Slots) -> Made<Vec<Ins>> {
        self.n32 = slots.n_words;
        self.n64 = slots.n_longs;
        self.slots = Some(slots);
        self.decode()
    }

    //
    // operands
    //

    pub fn register(&self, name: &str, class: Class) -> Made<Register> {
        let r = self.registers.get(name).ok_or_else(|| format!("no register {name}"))?;
        if r.class == class {
            Ok(*r)
        } else {
            Err(format!("{name} is not of the kind {class:?}"))
        }
    }

    fn slot(&self, r: Register) -> Reg {
        match (&self.slots, r.class) {
            (Some(s), Class::Word) => s.words[r.id as usize] as Reg,
            (Some(s), Class::Long) => s.longs[r.id as usize] as Reg,
            _ => r.id as Reg,
        }
    }

    pub fn read(&mut self, name: &str, class: Class) -> Made<Reg> {
        let r = self.register(name, class)?;
        self.now.reads.push((class, r.id));
        Ok(self.slot(r))
    }

    pub fn write(&mut self, name: &str, class: Class) -> Made<Reg> {
        let r = self.register(name, class)?;
        self.now.writes.push((class, r.id));
        Ok(self.slot(r))
    }

    pub fn word(&mut self, x: u32) -> Reg {
        let k = &mut self.k32;
        *self.found32.entry(x).or_insert_with(|| {
            k.push(x);
            !(k.len() as Reg - 1)
        })
    }

    pub fn long(&mut self, x: u64) -> Reg {
        let k = &mut self.k64;
        *self.found64.entry(x).or_insert_with(|| {
            k.push(x);
            !(k.len() as Reg - 1)
        })
    }

    /// Bits of an immediate value or of a variable's address.
    pub fn constant(&self, arg: &Arg) -> Made<u64> {
        Ok(match arg {
            Arg::Int(x) => *x as u64,
            Arg::F32(x) => *x as u64,
            Arg::F64(x) => *x,
            Arg::Name(n) => match (self.shared.get(n), self.local.get(n), self.params.get(n)) {
                (Some(at), ..) | (_, Some(at), _) | (.., Some(at)) => *at as u64,
                _ if n == "WARP_SZ" => 32,
                _ => return Err(format!("no variable {n}")),
            },
            _ => return Err(format!("no value: {arg:?}")),
        })
    }

    pub fn src(&mut self, arg: &Arg, bits: u32) -> Made<Reg> {
        match (arg, bits) {
            (Arg::Reg(name), 64) => self.read(name, Class::Long),
            (Arg::Reg(name), 8 | 16 | 32) => self.read(name, Class::Word),
            (_, 64) => self.constant(arg).map(|x| self.long(x)),
            (_, 16) => self.constant(arg).map(|x| self.word(x as u16 as u32)),
            (_, 8 | 32) => self.constant(arg).map(|x| self.word(x as u32)),
            _ => Err(format!("a value of {bits} bits")),
        }
    }

    pub fn dst(&mut self, arg: &Arg, bits: u32) -> Made<Reg> {
        match (arg, bits) {
            (Arg::Reg(name), 64) => self.write(name, Class::Long),
            (Arg::Reg(name), 8 | 16 | 32) => self.write(name, Class::Word),
            _ => Err(format!("no place for {bits} bits: {arg:?}")),
        }
    }

    pub fn pred(&mut self, arg: &Arg) -> Made<Reg> {
        match arg {
            Arg::Reg(name) => self.read(name, Class::Pred),
            Arg::Int(x) => Ok(if *x == 0 { -1 } else { -2 }),
            _ => Err(format!("no predicate: {arg:?}")),
        }
    }

    pub fn dst_pred(&mut self, arg: &Arg) -> Made<Reg> {
        match arg {
            Arg::Reg(name) => self.write(name, Class::Pred),
            _ => Err(format!("no predicate: {arg:?}")),
        }
    }

    pub fn label(&self, arg: &Arg) -> Made<i64> {
        match arg {
            Arg::Name(n) => self.body.labels.get(n).map(|x| *x as i64).ok_or_else(|| format!("no label {n}")),
            _ => Err("no label".into()),
        }
    }

    /// Registers behind one another in `lists`.
    pub fn list(&mut self, args: &[Arg], bits: u32, write: bool) -> Made<()> {
        for a in args {
            let r = match a {
                Arg::Sink if write => i32::MAX,
                a if write => self.dst(a, bits)?,
                a => self.src(a, bits)?,
            };
            self.lists.push(r);
        }
        Ok(())
    }

    /// A value or several in braces.
    pub fn several(arg: &Arg) -> &[Arg] {
        match arg {
            Arg::List(l) => l,
            a => std::slice::from_ref(a),
        }
    }

    /// An address: `a` and `imm`; returns whether it has 64 bits.
    pub fn address(&mut self, ins: &mut Ins, arg: &Arg) -> Made<bool> {
        let Arg::Mem(base, offset) = arg else { return Err(format!("no address: {arg:?}")) };
        ins.imm = *offset;
        match base.as_deref() {
            Some(Arg::Reg(name)) => {
                let long = self.register(name, Class::Long).is_ok();
                ins.a = self.read(name, if long { Class::Long } else { Class::Word })?;
                return Ok(long);
            }
            Some(name) => ins.imm += self.constant(name)? as i64,
            None => {}
        }
        ins.a = self.long(0);
        Ok(true)
    }
}
