//! A kernel as text becomes statements; nothing is understood yet.

use std::collections::HashMap;

/// File, line, column.
pub type Place = (u32, u32, u32);

/// An operand as it stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Reg(String),
    /// `!%p1`
    Not(String),
    /// `%r1|%p1`
    Pair(String, String),
    Int(i64),
    /// `0f3F800000`
    F32(u32),
    F64(u64),
    /// A symbol or a label.
    Name(String),
    /// `[base+offset]`; no base: an address as a number
    Mem(Option<Box<Arg>>, i64),
    List(Vec<Arg>),
    /// `_`
    Sink,
}

#[derive(Debug)]
pub struct Statement {
    /// (register, negated)
    pub guard: Option<(String, bool)>,
    pub op: String,
    pub args: Vec<Arg>,
    pub place: Place,
}

/// A variable in shared or local memory: its bytes and alignment.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub align: usize,
    /// None: `.extern`, as many as the launch gives.
    pub size: Option<usize>,
}

#[derive(Debug, Default)]
pub struct Body {
    /// Name, bytes, alignment.
    pub params: Vec<Variable>,
    pub statements: Vec<Statement>,
    /// Before which statement.
    pub labels: HashMap<String, usize>,
    pub tables: HashMap<String, Vec<String>>,
    /// Where a place of a function that was inlined is called from.
    pub callers: HashMap<Place, Place>,
    /// (kind, as "b32") of each register. A name of an inner block has the block's number behind it.
    pub registers: HashMap<String, String>,
    pub shared: Vec<Variable>,
    pub local: Vec<Variable>,
}

pub fn word_end(s: &str) -> usize {
    s.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '%' | '.'))).unwrap_or(s.len())
}

/// `.param .align 8 .b8 name[224]`, `.shared ...`, `.param .u32 name`
pub fn variable(s: &str) -> Option<Variable> {
    let mut v = Variable { name: String::new(), align: 1, size: None };
    let mut parts = s.split_whitespace();
    let mut unit = 1;
    while let Some(p) = parts.next() {
        if p == ".align" {
            v.align = parts.next()?.parse().ok()?;
        } else if let Some(bits) = p
            .strip_prefix(['.'])
            .and_then(|p| p.strip_prefix(['b', 'u', 's', 'f']))
            .and_then(|p| p.parse::<usize>().ok())
        {
            unit = bits / 8;
            v.align = v.align.max(unit);
        } else if !p.starts_with('.') && !matches!(p, "extern" | "shared" | "local" | "param") {
            let (name, length) = p.split_once('[').map_or((p, None), |(n, l)| (n, Some(l.trim_end_matches(']'))));
            v.name = name.to_string();
            v.size = match length {
                Some("") => None,
                Some(n) => Some(n.parse::<usize>().ok()? * unit),
                None => Some(unit),
            };
        }
    }
    (!v.name.is_empty()).then_some(v)
}

struct Parser {
    body: Body,
    /// Names of registers that inner blocks declare, and what they stand for.
    scopes: Vec<HashMap<String, String>>,
    n_scopes: usize,
    place: Place,
    label: String,
}

fn numbers(s: &str) -> Option<Place> {
    let mut words = s.split([' ', '\t', ',']).filter(|s| !s.is_empty()).map(|s| s.parse().ok());
    Some((words.next()??, words.next()??, words.next()??))
}

/// What follows an entry's name.
pub fn body(text: &str) -> Result<Body, String> {
    let mut p =
        Parser { body: Body::default(), scopes: Vec::new(), n_scopes: 0, place: (0, 0, 0), label: String::new() };
    let open = text.find('{').ok_or("a kernel without a body")?;
    if let Some(begin) = text[..open].find('(') {
        let end = text[..open].find(')').ok_or("parameters without an end")?;
        for s in text[begin + 1..end].split(',').filter(|s| !s.trim().is_empty()) {
            p.body.params.push(variable(s.trim()).ok_or_else(|| format!("not understood: {s}"))?);
        }
    }
    let mut rest = &text[open..];
    loop {
        rest = rest.trim_start();
        let first = rest.chars().next().ok_or("a kernel without an end")?;
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with(".loc") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let (own, caller) = rest[4..end].split_once("inlined_at").map_or((&rest[4..end], ""), |x| x);
            if let Some(place) = numbers(own).filter(|place| place.1 != 0) {
                p.place = place;
                if let Some(caller) = numbers(caller) {
                    p.body.callers.insert(place, caller);
                }
            }
            rest = &rest[end..];
        } else if first == '{' {
            p.scopes.push(HashMap::new());
            p.n_scopes += 1;
            rest = &rest[1..];
        } else if first == '}' {
            p.scopes.pop();
            rest = &rest[1..];
            if p.scopes.is_empty() {
                return Ok(p.body);
            }
        } else {
            let end = word_end(rest);
            if end > 0 && rest[end..].starts_with(':') {
                p.label = rest[..end].to_string();
                p.body.labels.insert(p.label.clone(), p.body.statements.len());
                rest = &rest[end + 1..];
                continue;
            }
            let end = rest.find(';').ok_or("a statement without an end")?;
            p.statement(rest[..end].trim())?;
            rest = &rest[end + 1..];
        }
    }
}

impl Parser {
    fn statement(&mut self, s: &str) -> Result<(), String> {
        let bad = || format!("not understood: {s}");
        if let Some(rest) = s.strip_prefix(".reg") {
            let (kind, names) = rest.trim().split_once(char::is_whitespace).ok_or_else(bad)?;
            let kind = kind.trim_start_matches('.').to_string();
            for name in names.split(',').map(str::trim) {
                if let Some((name, n)) = name.split_once('<') {
                    for i in 0..n.trim_end_matches('>').parse::<usize>().map_err(|_| bad())? {
                        self.body.registers.insert(format!("{name}{i}"), kind.clone());
                    }
                } else {
                    let own = format!("{name}@{}", self.n_scopes);
                    self.body.registers.insert(own.clone(), kind.clone());
                    self.scopes.last_mut().ok_or_else(bad)?.insert(name.to_string(), own);
                }
            }
            return Ok(());
        }
        if s.starts_with(".pragma") {
            return Ok(());
        }
        if s.starts_with(".shared") {
            self.body.shared.push(variable(s).ok_or_else(bad)?);
            return Ok(());
        }
        if s.starts_with(".local") {
            self.body.local.push(variable(s).ok_or_else(bad)?);
            return Ok(());
        }
        if let Some(rest) = s.strip_prefix(".branchtargets") {
            let targets = rest.split(',').map(|t| t.trim().to_string()).collect();
            self.body.tables.insert(self.label.clone(), targets);
            return Ok(());
        }
        if s.starts_with('.') {
            return Err(bad());
        }
        let (guard, s) = match s.strip_prefix('@') {
            None => (None, s),
            Some(rest) => {
                let (name, rest) = rest.split_once(char::is_whitespace).ok_or_else(bad)?;
                (Some((self.name(name.trim_start_matches('!')), name.starts_with('!'))), rest.trim_start())
            }
        };
        let (op, args) = s.split_once(char::is_whitespace).unwrap_or((s, ""));
        let args = self.args(args)?;
        self.body.statements.push(Statement { guard, op: op.to_string(), args, place: self.place });
        Ok(())
    }

    fn args(&self, s: &str) -> Result<Vec<Arg>, String> {
        let (mut depth, mut begin, mut out) = (0, 0, Vec::new());
        for (i, c) in s.char_indices().chain([(s.len(), ',')]) {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                ',' if depth == 0 => {
                    if !s[begin..i].trim().is_empty() {
                        out.push(self.arg(s[begin..i].trim())?);
                    }
                    begin = i + 1;
                }
                _ => {}
            }
        }
        Ok(out)
    }

    fn name(&self, s: &str) -> String {
        self.scopes.iter().rev().find_map(|scope| scope.get(s)).cloned().unwrap_or_else(|| s.to_string())
    }

    fn arg(&self, s: &str) -> Result<Arg, String> {
        let bad = |_| format!("not a number: {s}");
        if let Some(inner) = s.strip_prefix('{') {
            return Ok(Arg::List(self.args(inner.trim_end_matches('}'))?));
        }
        if let Some(inner) = s.strip_prefix('[') {
            let inner = inner.trim_end_matches(']').trim();
            let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
            return Ok(match (self.arg(base)?, self.arg(offset)?) {
                (Arg::Int(a), Arg::Int(b)) => Arg::Mem(None, a + b),
                (base, Arg::Int(offset)) => Arg::Mem(Some(Box::new(base)), offset),
                _ => return Err(format!("not an address: {s}")),
            });
        }
        if s == "_" {
            return Ok(Arg::Sink);
        }
        if let Some(inner) = s.strip_prefix('!') {
            return Ok(Arg::Not(self.name(inner)));
        }
        if let Some((a, b)) = s.split_once('|') {
            return Ok(Arg::Pair(self.name(a), self.name(b)));
        }
        if let Some(hex) = s.strip_prefix("0f").or(s.strip_prefix("0F")) {
            return u32::from_str_radix(hex, 16).map(Arg::F32).map_err(bad);
        }
        if let Some(hex) = s.strip_prefix("0d").or(s.strip_prefix("0D")) {
            return u64::from_str_radix(hex, 16).map(Arg::F64).map_err(bad);
        }
        let digits = s.strip_prefix('-').unwrap_or(s);
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            let digits = digits.trim_end_matches('U');
            let n = match digits.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            let n = n.map_err(bad)? as i64;
            return Ok(Arg::Int(if s.starts_with('-') { n.wrapping_neg() } else { n }));
        }
        let own = self.name(s);
        Ok(if s.starts_with('%') || own != s { Arg::Reg(own) } else { Arg::Name(own) })
    }
}
