//! Instructions on registers: moves, arithmetic, comparisons, selections, conversions.

use crate::access::{LOCAL_WINDOW, SHARED_WINDOW};
use crate::decode::{type_bits, Class, Decoder, Made, Op};
use crate::program::{Ins, Kind, Run};
use crate::text::{Arg, Statement};
use crate::{act, convert, exchange, float, half, integer, run, special, warp};

impl Decoder<'_> {
    pub fn statement(&mut self, s: &Statement) -> Made<Ins> {
        let mut parts = s.op.split('.');
        let name = parts.next().unwrap_or("");
        let mods: Vec<&str> = parts.filter(|p| !p.is_empty()).flat_map(|p| p.split("::")).collect();
        let op = Op { name, ty: mods.last().copied().unwrap_or(""), mods };
        let none: Run = |_, _, _, _| Ok(());
        let mut ins = Ins {
            run: none,
            kind: Kind::Plain,
            size: 0,
            count: 0,
            guard: 0,
            d: 0,
            a: 0,
            b: 0,
            c: 0,
            list: 0,
            imm: 0,
            place: s.place,
        };
        ins.list = self.lists.len() as u32;
        if let Some((name, negated)) = &s.guard {
            let p = self.read(name, Class::Pred)? + 1;
            ins.guard = if *negated { -p } else { p };
        }
        let args = &s.args[..];
        match op.name {
            "mov" => self.mov(&op, args, &mut ins)?,
            "ld" | "ldu" | "st" | "atom" | "red" => self.memory(&op, args, &mut ins)?,
            "cp" => self.copy(&op, args, &mut ins)?,
            "setp" => self.setp(&op, args, &mut ins)?,
            "selp" => self.selp(&op, args, &mut ins)?,
            "bra" => {
                ins.kind = Kind::Branch;
                ins.imm = self.label(args.first().ok_or("no label")?)?;
            }
            "brx" => {
                let [index, Arg::Name(table)] = args else { return Err("no table".into()) };
                ins.kind = Kind::Table;
                ins.a = self.src(index, 32)?;
                ins.imm = self.tables.len() as i64;
                let targets = self.body.tables.get(table).ok_or("no table")?;
                let targets: Made<Vec<u32>> =
                    targets.iter().map(|t| self.label(&Arg::Name(t.clone())).map(|x| x as u32)).collect();
                self.tables.push(targets?);
            }
            "ret" | "exit" => ins.kind = Kind::Exit,
            "trap" => ins.run = warp::trap,
            "bar" | "barrier" => self.barrier(&op, args, &mut ins)?,
            "griddepcontrol" if op.has("wait") => ins.run = warp::wait_before,
            "griddepcontrol" if op.has("launch_dependents") => {}
            // warps see what others wrote at once
            "membar" | "fence" => {}
            "mma" | "movmatrix" => self.matrix(&op, args, &mut ins)?,
            "shfl" | "vote" | "redux" | "activemask" => self.exchange(&op, args, &mut ins)?,
            "cvta" => self.cvta(&op, args, &mut ins)?,
            "cvt" => {
                let n = op.mods.len();
                let [to, from] = op.mods[n.saturating_sub(2)..] else { return Err("no types".into()) };
                let bits = match &args[0] {
                    Arg::Reg(name) => self.registers.get(name.as_str()).map_or(0, |r| r.bits),
                    _ => 0,
                };
                ins.run = convert::cvt(&op, to, from, bits).ok_or("unknown")?;
                ins.d = self.dst(&args[0], bits)?;
                ins.a = self.src(&args[1], type_bits(from))?;
                if args.len() > 2 {
                    ins.b = self.src(&args[2], type_bits(from))?;
                }
            }
            _ if op.ty == "pred" => self.predicates(&op, args, &mut ins)?,
            _ => self.arithmetic(&op, args, &mut ins)?,
        }
        Ok(ins)
    }

    fn arithmetic(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        let bits = op.bits();
        ins.run = match (op.ty, bits) {
            ("f32", _) => float::single(op),
            ("f16" | "f16x2", _) => half::arithmetic(op),
            (_, 16) => integer::short(op),
            (_, 32) => integer::word(op),
            (_, 64) if !op.ty.starts_with('f') => integer::long(op),
            _ => None,
        }
        .ok_or("unknown")?;
        let wide = op.has("wide");
        let narrow = matches!(op.name, "popc" | "clz");
        let (d, rest) = args.split_first().ok_or("no operands")?;
        ins.d = self.dst(
            d,
            if wide {
                2 * bits
            } else if narrow {
                32
            } else {
                bits
            },
        )?;
        for (n, arg) in rest.iter().enumerate() {
            let own = match (op.name, n) {
                ("shl" | "shr", 1) => 32,
                ("mad", 2) if wide => 2 * bits,
                _ => bits,
            };
            let r = self.src(arg, own)?;
            match n {
                0 => ins.a = r,
                1 => ins.b = r,
                2 => ins.c = r,
                _ => ins.list = r as u32,
            }
        }
        Ok(())
    }

    fn predicates(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        ins.d = self.dst_pred(&args[0])?;
        ins.a = self.pred(&args[1])?;
        if args.len() > 2 {
            ins.b = self.pred(&args[2])?;
        }
        ins.run = match op.name {
            "and" => act!(|w, i, m| w.put_pred(i.d, m, w.pred(i.a) & w.pred(i.b))),
            "or" => act!(|w, i, m| w.put_pred(i.d, m, w.pred(i.a) | w.pred(i.b))),
            "xor" => act!(|w, i, m| w.put_pred(i.d, m, w.pred(i.a) ^ w.pred(i.b))),
            "not" => act!(|w, i, m| w.put_pred(i.d, m, !w.pred(i.a))),
            _ => return Err("unknown".into()),
        };
        Ok(())
    }

    fn setp(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        ins.run = match op.ty {
            "f32" => float::setp(op),
            ty if ty.starts_with('f') => None,
            _ => integer::setp(op),
        }
        .ok_or("unknown")?;
        match &args[0] {
            Arg::Pair(p, q) => {
                ins.d = self.write(p, Class::Pred)?;
                ins.list = self.write(q, Class::Pred)? as u32;
                ins.count = 1;
            }
            p => ins.d = self.dst_pred(p)?,
        }
        ins.a = self.src(&args[1], op.bits())?;
        ins.b = self.src(&args[2], op.bits())?;
        if let Some(c) = args.get(3) {
            ins.imm = match op.mods[1] {
                "and" => 1,
                "or" => 2,
                "xor" => 3,
                _ => return Err("unknown".into()),
            };
            if let Arg::Not(name) = c {
                ins.size = 1;
                ins.c = self.read(name, Class::Pred)?;
            } else {
                ins.c = self.pred(c)?;
            }
        }
        Ok(())
    }

    fn selp(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        ins.d = self.dst(&args[0], op.bits())?;
        ins.a = self.src(&args[1], op.bits())?;
        ins.b = self.src(&args[2], op.bits())?;
        ins.c = self.pred(&args[3])?;
        ins.run = if op.bits() == 64 { exchange::select64 } else { exchange::select };
        Ok(())
    }

    fn mov(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        let bits = op.bits();
        match (&args[0], &args[1]) {
            (d, s) if op.ty == "pred" => {
                ins.d = self.dst_pred(d)?;
                ins.a = self.pred(s)?;
                ins.run = act!(|w, i, m| w.put_pred(i.d, m, w.pred(i.a)));
            }
            (Arg::List(parts), s) => {
                ins.a = self.src(s, bits)?;
                self.list(parts, bits / 2, true)?;
                ins.run = match (bits, parts.len()) {
                    (32, 2) => exchange::split32,
                    (64, 2) => exchange::split64,
                    _ => return Err("unknown".into()),
                };
            }
            (d, Arg::List(parts)) => {
                ins.d = self.dst(d, bits)?;
                let [lo, hi] = &parts[..] else { return Err("unknown".into()) };
                ins.a = self.src(lo, bits / 2)?;
                ins.b = self.src(hi, bits / 2)?;
                ins.run = match bits {
                    32 => run!(map2, |a, b| a & 0xffff | b << 16),
                    64 => run!(widen2, |a, b| a as u64 | (b as u64) << 32),
                    _ => return Err("unknown".into()),
                };
            }
            (d, Arg::Reg(s)) if !self.registers.contains_key(s.as_str()) => {
                ins.d = self.dst(d, bits)?;
                ins.imm = special::number(s).ok_or("an unknown register")?;
                ins.run = if bits == 64 { special::read64 } else { special::read };
            }
            (d, s) => {
                ins.d = self.dst(d, bits)?;
                ins.a = self.src(s, bits)?;
                ins.run = if bits == 64 { run!(wide1, |a| a) } else { run!(map1, |a| a) };
            }
        }
        Ok(())
    }

    fn cvta(&mut self, op: &Op, args: &[Arg], ins: &mut Ins) -> Made<()> {
        let bits = op.bits();
        ins.d = self.dst(&args[0], bits)?;
        ins.a = self.src(&args[1], bits)?;
        if bits != 64 {
            return Err("unknown".into());
        }
        let window = if op.has("shared") {
            SHARED_WINDOW
        } else if op.has("local") {
            LOCAL_WINDOW
        } else if op.has("global") {
            0
        } else {
            return Err("unknown".into());
        };
        ins.imm = if op.has("to") { (window as i64).wrapping_neg() } else { window as i64 };
        ins.run = |w, _, i, m| {
            let add = i.imm as u64;
            w.wide1(i, m, |a| a.wrapping_add(add));
            Ok(())
        };
        Ok(())
    }
}
