//! The time of every single step of a generation, and what the cache did in it.
//!
//! `cargo run --release --example steps -- --model MODEL.gguf --cache plan.json --ctx 8192 [--from N] [--to N] [--threads N]` decodes
//! one token after the other up to the context's end and prints CSV, a line per step:
//!
//! ```text
//! position   of the token
//! ns         llama_decode and its logits
//! s16_8, s8_4, s4_2, narrow   blocks of a side that were narrowed in the step, by widths; that started narrow
//! held       bytes in use after it, tables, parameters and scratch counted; 0 for llama.cpp's own caches
//! past       cells outside sink, window and open block after it, mean over sides
//! bits       mean bits of their values, parameters counted; 0 without any
//! captures, launches   CUDA graphs that were captured and launched in the step, if tests/cuda/graphs.c is preloaded, else 0
//! ```
//!
//! Tokens are arbitrary: times do not depend on them. `scripts/steps.py` runs this, draws it, and finds the slowest step.

use clap::Parser;
use pmkvq::ffi::{Cache, Context, ContextSizes, Model, PlainType};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    /// f16, q8_0, q4_0, or a plan's file
    #[arg(long)]
    cache: String,
    /// Tokens of the context
    #[arg(long)]
    ctx: u32,
    /// Tokens that are read in batches of 512 first, without being timed
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// Where to stop before the context's end
    #[arg(long)]
    to: Option<u32>,
    #[arg(long, default_value_t = 2)]
    threads: u32,
}

/// Tokens of a batch of the part that is not timed.
const BATCH: u32 = 512;

/// What `describe` says, as far as it is printed.
#[derive(Clone, Copy, Default)]
struct State {
    /// Since the start: 16 to 8, 8 to 4, 4 to 2 bits, started narrow.
    shrinks: [u64; 4],
    held: u64,
    past: f64,
    bits: f64,
}

impl State {
    fn of(described: &Value) -> State {
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let shrinks = ["16-8", "8-4", "4-2", "started_narrow"].map(|name| number(&described["shrinks"][name]));
        let layers = described["layers"].as_array().map_or(&[][..], Vec::as_slice);
        let sides: Vec<&Value> = layers.iter().flat_map(|l| [&l["k"], &l["v"]]).collect();
        let cells = |side: &&Value| side["history"].as_object().map_or(0, |h| h.values().map(number).sum());
        let past: u64 = sides.iter().map(cells).sum();
        let (values, bits) = (number(&described["history"]["values"]), number(&described["history"]["bits"]));
        State {
            shrinks,
            held: number(&described["bytes"]["held"]),
            past: past as f64 / sides.len().max(1) as f64,
            bits: if values == 0 { 0.0 } else { bits as f64 / values as f64 },
        }
    }

    fn now(ctx: &Context) -> State {
        ctx.describe().as_ref().map_or_else(State::default, State::of)
    }
}

/// What tests/cuda/graphs.c counts; nothing where it is not preloaded.
struct Graphs(Option<unsafe extern "C" fn(*mut u64)>);

impl Graphs {
    fn find() -> Graphs {
        // SAFETY: a name; the function that has it takes room for five numbers
        unsafe {
            let p = libc::dlsym(libc::RTLD_DEFAULT, c"pmkvq_graph_counts".as_ptr());
            Graphs((!p.is_null()).then(|| std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut u64)>(p)))
        }
    }

    /// Captured, launched.
    fn now(&self) -> [u64; 2] {
        let mut counts = [0; 5];
        if let Some(f) = self.0 {
            // SAFETY: as in `find`
            unsafe { f(counts.as_mut_ptr()) }
        }
        [counts[0], counts[3]]
    }
}

fn run(args: &Args) -> Result<(), String> {
    let cache = match args.cache.as_str() {
        "f16" => Cache::Plain(PlainType::F16),
        "q8_0" => Cache::Plain(PlainType::Q8_0),
        "q4_0" => Cache::Plain(PlainType::Q4_0),
        plan => Cache::Plan(PathBuf::from(plan)),
    };
    let model = Model::load(&args.model)?;
    let (n_batch, threads) = (BATCH.min(args.ctx), args.threads);
    let sizes = ContextSizes { n_ctx: args.ctx, n_batch, n_ubatch: n_batch, n_seq_max: 1, threads };
    let mut ctx = Context::new(&model, &cache, &sizes)?;
    let token = |pos: u32| (pos.wrapping_mul(7919) as usize % model.n_vocab().max(1)) as i32;

    let from = args.from.min(args.ctx);
    for first in (0..from).step_by(BATCH as usize) {
        let tokens: Vec<i32> = (first..(first + BATCH).min(from)).map(token).collect();
        ctx.decode(&tokens, first as i32, 0).map_err(|e| format!("position {first}: {e}"))?;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = |e: std::io::Error| e.to_string();
    writeln!(out, "position,ns,s16_8,s8_4,s4_2,narrow,held,past,bits,captures,launches").map_err(written)?;
    let graphs = Graphs::find();
    let mut last = State::now(&ctx);
    for pos in from..args.to.map_or(args.ctx, |to| to.min(args.ctx)) {
        let counted = graphs.now();
        let tokens = [token(pos)];
        let begun = Instant::now();
        ctx.decode(&tokens, pos as i32, 0).map_err(|e| format!("position {pos}: {e}"))?;
        // waits for what may still run
        std::hint::black_box(ctx.logits(0));
        let ns = begun.elapsed().as_nanos();
        let state = State::now(&ctx);
        let [a, b, c, d]: [u64; 4] = std::array::from_fn(|i| state.shrinks[i] - last.shrinks[i]);
        let State { held, past, bits, .. } = state;
        let [captures, launches]: [u64; 2] = std::array::from_fn(|i| graphs.now()[i] - counted[i]);
        writeln!(out, "{pos},{ns},{a},{b},{c},{d},{held},{past:.1},{bits:.4},{captures},{launches}")
            .map_err(written)?;
        last = state;
    }
    out.flush().map_err(written)
}

pub fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("steps: {message}");
            ExitCode::FAILURE
        }
    }
}
