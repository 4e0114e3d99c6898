//! Models and adapters with random weights, written as GGUF files.
#![allow(dead_code)] // no test program uses all of it

use super::rng::Rng;
use super::temporary::Temporary;

/// A GGUF file (version 3) in the making; all tensors are f32.
pub struct Gguf {
    arch: &'static str,
    n_kv: u64,
    kv: Vec<u8>,
    tensors: Vec<(String, Vec<u64>)>,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    /// A model without a tokenizer: token ids are all there is.
    pub fn new(arch: &'static str, n_vocab: u32) -> Gguf {
        let mut g = Gguf::of(arch);
        g.text("tokenizer.ggml.model", "no_vocab");
        g.u32("vocab_size", n_vocab);
        g
    }

    /// A LoRA adapter for models of an architecture; alpha over the rank is what it is scaled by.
    pub fn lora(arch: &'static str, alpha: f32) -> Gguf {
        let mut g = Gguf::of(arch);
        g.text("general.type", "adapter");
        g.text("adapter.type", "lora");
        g.key("adapter.lora.alpha", 6);
        g.kv.extend(alpha.to_le_bytes());
        g
    }

    fn of(arch: &'static str) -> Gguf {
        let mut g = Gguf { arch, n_kv: 0, kv: Vec::new(), tensors: Vec::new() };
        g.text("general.architecture", arch);
        g
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.n_kv += 1;
        put_text(&mut self.kv, key);
        self.kv.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.kv, value);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(&format!("{}.{key}", self.arch), 4);
        self.kv.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(&format!("{}.{key}", self.arch), 6);
        self.kv.extend(value.to_le_bytes());
    }

    pub fn array(&mut self, key: &str, values: &[u32]) {
        self.key(&format!("{}.{key}", self.arch), 9);
        self.kv.extend(4u32.to_le_bytes());
        self.kv.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|v| self.kv.extend(v.to_le_bytes()));
    }

    /// A tensor by its name without `.weight`; the first dimension is the contiguous one.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[u32]) {
        self.named(format!("{}.weight", name.into()), shape);
    }

    /// The two factors of what an adapter adds to a tensor of `n_in` and `n_out` dimensions.
    pub fn factors(&mut self, name: &str, n_in: u32, n_out: u32, rank: u32) {
        self.named(format!("{name}.weight.lora_a"), &[n_in, rank]);
        self.named(format!("{name}.weight.lora_b"), &[rank, n_out]);
    }

    fn named(&mut self, name: String, shape: &[u32]) {
        self.tensors.push((name, shape.iter().map(|n| u64::from(*n)).collect()));
    }

    /// Writes the file, weights drawn with `seed`: norms near one, the rest near zero.
    pub fn write(&self, seed: u64) -> Temporary {
        const ALIGNMENT: usize = 32;
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_kv.to_le_bytes());
        out.extend(&self.kv);
        let mut offset = 0u64;
        for (name, shape) in &self.tensors {
            put_text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (4 * shape.iter().product::<u64>()).next_multiple_of(ALIGNMENT as u64);
        }
        let mut rng = Rng::new(seed);
        for (name, shape) in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            let center = match name {
                // attention that isn't one peak: else the smallest rounding is another answer
                _ if name.contains("attn_q_norm") => 0.2,
                _ if name.contains("norm") => 1.0,
                _ => 0.0,
            };
            for _ in 0..shape.iter().product::<u64>() {
                out.extend((center + 0.1 * rng.normal()).to_le_bytes());
            }
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        let file = Temporary::new("gguf");
        std::fs::write(&file.0, out).unwrap();
        file
    }
}
