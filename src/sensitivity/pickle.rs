//! A reader of pickles that hold numbers, texts, lists, dicts and torch tensors, and nothing else.
//!
//! A pickle is a program. This reader runs the part of it that builds data; the few callables that torch and numpy need
//! to say "tensor" or "number" are recognised by name and turned into data here, every other name is refused, and nothing
//! is ever called, imported or executed. Values live in an arena and refer to each other by index, so that a pickle that
//! contains itself does no harm. Every operation takes at least one byte of the file, and none copies more than
//! [`MAX_COPY`] bytes of what is there already, so work and memory are bounded by the file's size.

use std::collections::HashMap;
use std::fmt;

/// Longest text that an operation copies: names of storages, bytes of numbers, both much shorter.
const MAX_COPY: usize = 256;

/// Index in the arena.
pub type Ref = usize;

/// Types of numbers in storages and numpy scalars, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    F16,
    BF16,
    F32,
    F64,
    I32,
    I64,
}

impl NumberType {
    pub const fn bytes(self) -> usize {
        match self {
            NumberType::F16 | NumberType::BF16 => 2,
            NumberType::F32 | NumberType::I32 => 4,
            NumberType::F64 | NumberType::I64 => 8,
        }
    }

    /// The number in exactly [`NumberType::bytes`] bytes.
    pub fn read(self, b: &[u8]) -> Option<f64> {
        Some(match self {
            NumberType::F16 => f64::from(half::f16::from_le_bytes(b.try_into().ok()?)),
            NumberType::BF16 => f64::from(half::bf16::from_le_bytes(b.try_into().ok()?)),
            NumberType::F32 => f64::from(f32::from_le_bytes(b.try_into().ok()?)),
            NumberType::F64 => f64::from_le_bytes(b.try_into().ok()?),
            NumberType::I32 => f64::from(i32::from_le_bytes(b.try_into().ok()?)),
            NumberType::I64 => i64::from_le_bytes(b.try_into().ok()?) as f64,
        })
    }
}

/// Names that a pickle may mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    RebuildTensor,
    OrderedDict,
    NumpyScalar,
    NumpyDtype,
    Encode,
    Storage(NumberType),
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Ref>),
    Tuple(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    Global(Global),
    Dtype(NumberType),
    Storage { key: String, number: NumberType, n: u64 },
    Tensor { storage: Ref, offset: u64, shape: Vec<u64>, stride: Vec<u64> },
}

/// Why a pickle was refused; `at` is the byte of the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PickleError {
    Truncated {
        at: usize,
    },
    Opcode {
        at: usize,
        code: u8,
    },
    /// A name other than the few that are data.
    Forbidden {
        at: usize,
        name: String,
    },
    /// An operation on the wrong kinds of values.
    Malformed {
        at: usize,
        what: &'static str,
    },
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at } => write!(f, "the pickle ends in the middle of an operation (byte {at})"),
            Self::Opcode { at, code } => write!(f, "the pickle has an operation 0x{code:02x} at byte {at} that data does not need; refused"),
            Self::Forbidden { at, name } => write!(
                f,
                "the pickle names '{name}' at byte {at}: only tensors, numbers, texts, lists and dicts are read; refused, and \
                 nothing was executed"
            ),
            Self::Malformed { at, what } => write!(f, "the pickle is malformed at byte {at}: {what}"),
        }
    }
}

impl std::error::Error for PickleError {}

/// What a pickle built.
#[derive(Debug)]
pub struct Pickle {
    arena: Vec<Node>,
    pub root: Ref,
}

impl Pickle {
    pub fn node(&self, at: Ref) -> &Node {
        &self.arena[at]
    }

    /// # Errors
    /// One [`PickleError`].
    pub fn read(bytes: &[u8]) -> Result<Pickle, PickleError> {
        let mut machine = Machine {
            bytes,
            at: 0,
            op: 0,
            arena: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        Ok(Pickle { arena: machine.arena, root })
    }
}

/// What a name stands for; `at` is the byte of the operation that mentions it.
fn known(at: usize, module: &str, name: &str) -> Result<Global> {
    Ok(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy", "dtype") => Global::NumpyDtype,
        ("_codecs", "encode") => Global::Encode,
        ("torch", "HalfStorage") => Global::Storage(NumberType::F16),
        ("torch", "BFloat16Storage") => Global::Storage(NumberType::BF16),
        ("torch", "FloatStorage") => Global::Storage(NumberType::F32),
        ("torch", "DoubleStorage") => Global::Storage(NumberType::F64),
        _ => {
            let shorten = crate::plan::size::shorten;
            return Err(PickleError::Forbidden { at, name: format!("{}.{}", shorten(module), shorten(name)) });
        }
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current operation starts.
    op: usize,
    arena: Vec<Node>,
    stack: Vec<Ref>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Ref>,
}

type Result<T, E = PickleError> = std::result::Result<T, E>;

impl Machine<'_> {
    fn malformed<T>(&self, what: &'static str) -> Result<T> {
        Err(PickleError::Malformed { at: self.op, what })
    }

    fn take(&mut self, n: u64) -> Result<&[u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end {
            Some(end) if end <= self.bytes.len() => {
                let found = &self.bytes[self.at..end];
                self.at = end;
                Ok(found)
            }
            _ => Err(PickleError::Truncated { at: self.op }),
        }
    }

    /// A little-endian number of `n` bytes, at most 8.
    fn unsigned(&mut self, n: u64) -> Result<u64> {
        let bytes = self.take(n)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|b| *b == b'\n').ok_or(PickleError::Truncated { at: self.op })?;
        let line = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.at += n + 1;
        Ok(line)
    }

    fn text(&mut self, n: u64) -> Result<Node> {
        match String::from_utf8(self.take(n)?.to_vec()) {
            Ok(text) => Ok(Node::Text(text)),
            Err(_) => self.malformed("a text that is not UTF-8"),
        }
    }

    fn push(&mut self, node: Node) {
        self.arena.push(node);
        self.stack.push(self.arena.len() - 1);
    }

    fn pop(&mut self) -> Result<Ref> {
        if self.marks.last().is_some_and(|m| self.stack.len() <= *m) {
            return self.malformed("nothing is on the stack");
        }
        match self.stack.pop() {
            Some(at) => Ok(at),
            None => self.malformed("nothing is on the stack"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Ref>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => self.malformed("no mark is set"),
        }
    }

    fn tuple(&mut self, n: usize) -> Result<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn memoize(&mut self, key: u64) -> Result<()> {
        let Some(&top) = self.stack.last() else { return self.malformed("nothing to remember") };
        // 32 bits is all that the format has
        self.memo.insert(key as u32, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        match self.memo.get(&(key as u32)) {
            Some(&at) => {
                self.stack.push(at);
                Ok(())
            }
            None => self.malformed("a value is asked for that was never remembered"),
        }
    }

    fn append(&mut self, items: &[Ref]) -> Result<()> {
        if let Some(&top) = self.stack.last() {
            if let Node::List(list) = &mut self.arena[top] {
                list.extend_from_slice(items);
                return Ok(());
            }
        }
        self.malformed("items for something that is not a list")
    }

    fn set_items(&mut self, items: &[Ref]) -> Result<()> {
        if !items.len().is_multiple_of(2) {
            return self.malformed("a key without a value");
        }
        if let Some(&top) = self.stack.last() {
            if let Node::Dict(dict) = &mut self.arena[top] {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                return Ok(());
            }
        }
        self.malformed("items for something that is not a dict")
    }

    fn run(&mut self) -> Result<Ref> {
        loop {
            self.op = self.at;
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => {
                    self.take(1)?; // protocol
                }
                0x95 => {
                    self.take(8)?; // frame
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'K' => {
                    let v = self.unsigned(1)?;
                    self.push(Node::Int(v as i64));
                }
                b'M' => {
                    let v = self.unsigned(2)?;
                    self.push(Node::Int(v as i64));
                }
                b'J' => {
                    let v = self.unsigned(4)? as u32 as i32;
                    self.push(Node::Int(v.into()));
                }
                0x8a => {
                    let n = self.unsigned(1)?;
                    if n > 8 {
                        return self.malformed("a whole number of more than 64 bits");
                    }
                    let v = self.unsigned(n)?;
                    // the highest bit is the sign
                    let unused = 64 - 8 * n as u32;
                    let v = if n == 0 { 0 } else { ((v << unused) as i64) >> unused };
                    self.push(Node::Int(v));
                }
                b'G' => {
                    let v = self.unsigned(8)?.swap_bytes();
                    self.push(Node::Float(f64::from_bits(v)));
                }
                b'X' | 0x8c | 0x8d => {
                    let n = self.unsigned(match code {
                        b'X' => 4,
                        0x8c => 1,
                        _ => 8,
                    })?;
                    let text = self.text(n)?;
                    self.push(text);
                }
                b'B' | b'C' | 0x8e | b'U' | b'T' => {
                    let n = self.unsigned(match code {
                        b'B' | b'T' => 4,
                        b'C' | b'U' => 1,
                        _ => 8,
                    })?;
                    let bytes = self.take(n)?.to_vec();
                    self.push(Node::Bytes(bytes));
                }
                b']' => self.push(Node::List(Vec::new())),
                b'}' => self.push(Node::Dict(Vec::new())),
                b')' => self.push(Node::Tuple(Vec::new())),
                0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Tuple(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(&items)?;
                }
                b'q' | b'r' => {
                    let key = self.unsigned(if code == b'q' { 1 } else { 4 })?;
                    self.memoize(key)?;
                }
                0x94 => self.memoize(self.memo.len() as u64)?,
                b'h' | b'j' => {
                    let key = self.unsigned(if code == b'h' { 1 } else { 4 })?;
                    self.recall(key)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let global = known(self.op, &module, &name)?;
                    self.push(Node::Global(global));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Node::Text(module), Node::Text(name)) = (&self.arena[module], &self.arena[name]) else {
                        return self.malformed("a name that is not a text");
                    };
                    let global = known(self.op, module, name)?;
                    self.push(Node::Global(global));
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                code => return Err(PickleError::Opcode { at: self.op, code }),
            }
        }
    }

    /// `("storage", type, key, device, numbers)`
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        if let Node::Tuple(parts) = &self.arena[id] {
            if let [kind, number, key, _device, n] = parts[..] {
                let parts = (&self.arena[kind], &self.arena[number], &self.arena[key], &self.arena[n]);
                if let (Node::Text(kind), Node::Global(Global::Storage(number)), Node::Text(key), Node::Int(n)) = parts
                {
                    if let ("storage", Ok(n), ..=MAX_COPY) = (kind.as_str(), u64::try_from(*n), key.len()) {
                        let storage = Node::Storage { key: key.clone(), number: *number, n };
                        self.push(storage);
                        return Ok(());
                    }
                }
            }
        }
        self.malformed("something that is kept outside of the pickle and is not a storage of numbers")
    }

    fn sizes(&self, at: Ref) -> Option<Vec<u64>> {
        let Node::Tuple(items) = &self.arena[at] else { return None };
        // no tensor of these files has more than four dimensions
        if items.len() > 8 {
            return None;
        }
        let size = |at: &Ref| match self.arena[*at] {
            Node::Int(n) => u64::try_from(n).ok(),
            _ => None,
        };
        items.iter().map(size).collect()
    }

    fn reduce(&mut self) -> Result<()> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let (Node::Global(global), Node::Tuple(args)) = (&self.arena[callable], &self.arena[args]) else {
            return self.malformed("a call of something that is not one of the known names");
        };
        let node = match (global, &args[..]) {
            (Global::OrderedDict, []) => Some(Node::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, shape, stride, _grad, _hooks, ..]) => {
                match (&self.arena[*storage], &self.arena[*offset], self.sizes(*shape), self.sizes(*stride)) {
                    (Node::Storage { .. }, Node::Int(offset @ 0..), Some(shape), Some(stride)) => {
                        Some(Node::Tensor { storage: *storage, offset: *offset as u64, shape, stride })
                    }
                    _ => None,
                }
            }
            (Global::NumpyDtype, [name, ..]) => match &self.arena[*name] {
                Node::Text(name) => match name.as_str() {
                    "f2" => Some(Node::Dtype(NumberType::F16)),
                    "f4" => Some(Node::Dtype(NumberType::F32)),
                    "f8" => Some(Node::Dtype(NumberType::F64)),
                    "i4" => Some(Node::Dtype(NumberType::I32)),
                    "i8" => Some(Node::Dtype(NumberType::I64)),
                    _ => None,
                },
                _ => None,
            },
            // how protocol 2 writes bytes: as the text whose characters are the bytes
            (Global::Encode, [text, coding]) => match (&self.arena[*text], &self.arena[*coding]) {
                (Node::Text(text), Node::Text(coding)) if coding == "latin1" && text.len() <= MAX_COPY => {
                    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<_>>().map(Node::Bytes)
                }
                _ => None,
            },
            (Global::NumpyScalar, [dtype, bytes]) => match (&self.arena[*dtype], &self.arena[*bytes]) {
                (Node::Dtype(number), Node::Bytes(bytes)) if bytes.len() == number.bytes() => {
                    number.read(bytes).map(Node::Float)
                }
                _ => None,
            },
            _ => None,
        };
        match node {
            Some(node) => {
                self.push(node);
                Ok(())
            }
            None => self.malformed("a call with arguments that don't make a tensor or a number"),
        }
    }

    /// Only a numpy number type has a state; it must say little-endian.
    fn build(&mut self) -> Result<()> {
        let (state, target) = (self.pop()?, self.pop()?);
        if let (Node::Dtype(_), Node::Tuple(state)) = (&self.arena[target], &self.arena[state]) {
            if let Some(order) = state.get(1) {
                if matches!(&self.arena[*order], Node::Text(order) if order == "<") {
                    self.stack.push(target);
                    return Ok(());
                }
            }
        }
        self.malformed("a state for something that has none")
    }
}
