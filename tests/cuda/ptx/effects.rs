//! Instructions that touch memory or other lanes.

use crate::decode::{type_bits, Class, Decoder, Made, Op};
use crate::program::{Ins, Kind, Reg};
use crate::text::Arg;
use crate::{access, act, atomics, copies, exchange, matrix};

impl Decoder<'_> {
    pub fn memory(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        let space = ["global", "shared", "local", "param"].into_iter().find(|s| op.has(s)).unwrap_or("generic");
        let known = |m: &str| {
            type_bits(m) != 0
                || matches!(
                    m,
                    "global"
                        | "shared"
                        | "local"
                        | "param"
                        | "nc"
                        | "cs"
                        | "ca"
                        | "cg"
                        | "lu"
                        | "cv"
                        | "wb"
                        | "wt"
                        | "volatile"
                )
                || matches!(
                    m,
                    "relaxed"
                        | "acquire"
                        | "release"
                        | "acq_rel"
                        | "gpu"
                        | "cta"
                        | "sys"
                        | "v2"
                        | "v4"
                        | "L1"
                        | "no_allocate"
                )
                || matches!(m, "add" | "or" | "and" | "xor" | "min" | "max" | "exch" | "cas" | "inc" | "dec")
        };
        if let Some(m) = op.mods.iter().find(|m| !known(m)) {
            return Err(format!("unknown: {m}"));
        }
        let bits = op.bits();
        ins.size = (bits / 8) as u8;
        let wide = bits == 64;
        match op.name {
            "ld" | "ldu" => {
                let long = self.address(ins, &args[1])?;
                ins.b = long as Reg;
                let parts = Self::several(&args[0]);
                ins.count = parts.len() as u8;
                // a register may be wider than the element, and is filled
                let own = |p: &Arg| match p {
                    Arg::Reg(name) => self.registers.get(name.as_str()).map_or(0, |r| r.bits),
                    _ => 0,
                };
                let widths: Vec<u32> = parts.iter().map(own).collect();
                let full = widths[0].max(bits);
                ins.list = self.lists.len() as u32;
                self.list(parts, full, true)?;
                // which bits a narrow signed element fills
                ins.c = if op.ty.starts_with('s') { full as Reg } else { 0 };
                ins.d = (full == 64) as Reg;
                ins.run = if op.has("nc") { access::load_constant } else { access::load(space).ok_or("unknown")? };
            }
            "st" => {
                let long = self.address(ins, &args[0])?;
                ins.b = long as Reg;
                let parts = Self::several(&args[1]);
                ins.count = parts.len() as u8;
                ins.list = self.lists.len() as u32;
                // of a register that is wider the low bits are stored
                let own = |p: &Arg| match p {
                    Arg::Reg(name) => self.registers.get(name.as_str()).map_or(0, |r| r.bits),
                    _ => bits,
                };
                let full = parts.iter().map(own).max().unwrap_or(bits).max(bits);
                self.list(parts, full, false)?;
                ins.d = (full == 64) as Reg;
                ins.run = access::store(space).ok_or("unknown")?;
            }
            _ => {
                let with_result = op.name == "atom";
                let rest = &args[with_result as usize..];
                let long = self.address(ins, &rest[0])?;
                ins.c = long as Reg;
                ins.count = 1;
                ins.b = self.src(&rest[1], bits)?;
                self.lists.push(0);
                if let Some(x) = rest.get(2) {
                    *self.lists.last_mut().expect("just pushed") = self.src(x, bits)?;
                }
                ins.d = if with_result { self.dst(&args[0], bits)? } else { -1 };
                let what = op.mods.iter().copied().find(|m| atomics::ATOMICS.contains(m)).ok_or("unknown")?;
                ins.run = if wide { None } else { atomics::atomic(space, what, op.ty) }.ok_or("unknown")?;
            }
        }
        Ok(())
    }

    pub fn copy(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        if op.mods == ["async", "commit_group"] {
            ins.run = copies::commit;
        } else if op.mods == ["async", "wait_group"] {
            let [Arg::Int(n)] = args else { return Err("no number".into()) };
            ins.imm = *n;
            ins.run = copies::wait;
        } else if op.mods == ["async", "wait_all"] {
            ins.imm = -1;
            ins.run = copies::wait;
        } else if op.is(&["async"]) && op.mods[2..] == ["shared", "global"] && matches!(op.mods[1], "ca" | "cg") {
            // [d], [a], bytes, bytes of the source; the offset of the second address goes into the list
            let long = self.address(ins, &args[1])?;
            let (from, offset) = (ins.a, ins.imm);
            if !long {
                return Err("a source of 32 bits".into());
            }
            let long = self.address(ins, &args[0])?;
            (ins.d, ins.a) = (ins.a, from);
            ins.count = long as u8;
            self.lists.push(offset as Reg);
            let Some(Arg::Int(n @ (4 | 8 | 16))) = args.get(2) else { return Err("no size".into()) };
            if op.mods[1] == "cg" && *n != 16 {
                return Err("cg copies 16 bytes".into());
            }
            ins.size = *n as u8;
            ins.b = self.src(args.get(3).unwrap_or(&args[2]), 32)?;
            ins.run = copies::issue;
        } else {
            return Err("unknown".into());
        }
        Ok(())
    }

    pub fn barrier(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        if op.mods == ["warp", "sync"] {
            ins.kind = Kind::WarpSync;
            ins.c = self.src(&args[0], 32)?;
        } else if op.is(&["sync"]) || op.is(&["cta", "sync"]) {
            let Arg::Int(id) = &args[0] else { return Err("a barrier whose number is not known".into()) };
            ins.kind = Kind::Barrier;
            ins.imm = *id;
            ins.b = match args.get(1) {
                Some(Arg::Int(n)) => *n as Reg,
                None => 0,
                _ => return Err("a barrier whose threads are not known".into()),
            };
        } else {
            return Err("unknown".into());
        }
        Ok(())
    }

    pub fn exchange(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        ins.kind = Kind::Sync;
        match op.name {
            "shfl" if op.is(&["sync"]) => {
                let mut p = -1;
                match &args[0] {
                    Arg::Pair(d, q) => {
                        ins.d = self.write(d, Class::Word)?;
                        p = self.write(q, Class::Pred)?;
                    }
                    d => ins.d = self.dst(d, 32)?,
                }
                ins.a = self.src(&args[1], 32)?;
                ins.b = self.src(&args[2], 32)?;
                let clamp = self.src(&args[3], 32)?;
                ins.c = self.src(&args[4], 32)?;
                self.lists.extend([p, clamp]);
                ins.run = exchange::shuffle(op.mods[1]).ok_or("unknown")?;
            }
            "vote" if op.is(&["sync"]) => {
                let (negated, a) = match &args[1] {
                    Arg::Not(name) => (true, self.read(name, Class::Pred)?),
                    a => (false, self.pred(a)?),
                };
                ins.a = a;
                ins.size = negated as u8;
                ins.c = self.src(&args[2], 32)?;
                ins.d = if op.has("ballot") { self.dst(&args[0], 32)? } else { self.dst_pred(&args[0])? };
                ins.run = exchange::vote(op.mods[1]).ok_or("unknown")?;
            }
            "redux" if op.is(&["sync"]) => {
                ins.d = self.dst(&args[0], 32)?;
                ins.a = self.src(&args[1], 32)?;
                ins.c = self.src(&args[2], 32)?;
                ins.run = exchange::reduce(op.mods[1], op.ty).ok_or("unknown")?;
            }
            "activemask" => {
                ins.kind = Kind::Plain;
                ins.d = self.dst(&args[0], 32)?;
                ins.run = act!(|w, i, m| w.put32(i.d, m, &[m; 32]));
            }
            _ => return Err("unknown".into()),
        }
        Ok(())
    }

    pub fn matrix(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        ins.kind = Kind::Aligned;
        match op.name {
            "mma" => {
                let (run, counts) = matrix::mma(&op.mods).ok_or("unknown")?;
                ins.run = run;
                // d, a, b, c
                for (n, (arg, count)) in args.iter().zip(counts).enumerate() {
                    let parts = Self::several(arg);
                    if parts.len() != count {
                        return Err(format!("{count} registers are needed"));
                    }
                    self.list(parts, 32, n == 0)?;
                }
            }
            _ => {
                if op.mods != ["sync", "aligned", "m8n8", "trans", "b16"] {
                    return Err("unknown".into());
                }
                ins.d = self.dst(&args[0], 32)?;
                ins.a = self.src(&args[1], 32)?;
                ins.run = matrix::transpose;
            }
        }
        Ok(())
    }
}
