//! Images as llama.cpp's multimodal programs give them to `llama_decode`: embeddings in place of tokens, in some models seen by
//! each other whatever their order, in others all at one position in time (M-RoPE). With a plan that stays at 16 bits the
//! tokens around them get the answers of a plain cache; with one that shrinks on the way, nearly so.

use super::architectures::{models, name, nmse};
use super::common::*;
use pmkvq::ffi::{Cache, Context, ContextSizes, Model, PlainType};

const N_CTX: u32 = 512;
const WIDTH: usize = 13;
const HEIGHT: usize = 12;

/// Models by upstream's test; whether an image's tokens see each other.
const MODELS: [(&str, bool); 5] = [
    ("llama-dense", false),
    ("gemma3-dense", true),
    ("qwen2vl-dense", false),
    ("qwen3vl-dense", false),
    ("llama4-moe", false),
];

/// Positions of an image that begins at `pos`, in planes, and the position after it.
fn positions(model: &Model, pos: i32) -> (Vec<i32>, i32) {
    let n = WIDTH * HEIGHT;
    if !model.positions_have_parts() {
        return ((pos..).take(n).collect(), pos + n as i32);
    }
    let plane = |at: &dyn Fn(usize) -> usize| (0..n).map(|i| pos + at(i) as i32).collect::<Vec<i32>>();
    let planes = [plane(&|_| 0), plane(&|i| i / WIDTH), plane(&|i| i % WIDTH), vec![0; n]];
    (planes.concat(), pos + WIDTH.max(HEIGHT) as i32)
}

/// Logits of text, of an image after it, of another one in a second sequence that shares the text, and of text by single tokens in both
/// in turn; between the images a state is saved and restored. Also, how many blocks were narrowed or stored narrow.
fn logits(model: &Model, cache: &Cache, image_sees_itself: bool) -> (Vec<f32>, u64) {
    let sizes = ContextSizes { n_ctx: N_CTX, n_batch: 256, n_ubatch: 256, n_seq_max: 2, threads: 1 };
    let mut ctx = Context::new(model, cache, &sizes).unwrap();
    let mut rng = Rng::new(7);
    let mut tokens = |n: usize| (0..n).map(|_| rng.below(model.n_vocab()) as i32).collect::<Vec<i32>>();
    let mut out = Vec::new();

    let (before, after) = (tokens(70), tokens(40));
    ctx.decode(&before, 0, 0).unwrap();
    (0..before.len()).for_each(|i| out.extend_from_slice(ctx.logits(i)));
    ctx.seq_cp(0, 1, -1, -1);

    let image: Vec<f32> = (0..WIDTH * HEIGHT * model.n_embd()).map(|_| 0.02 * rng.normal()).collect();
    let mut next = [0; 2];
    for seq in 0..2 {
        let (pos, end) = positions(model, before.len() as i32);
        // the second sees its negative
        let image: Vec<f32> = if seq == 0 { image.clone() } else { image.iter().map(|x| -x).collect() };
        ctx.decode_embeddings(&image, &pos, seq, !image_sees_itself).unwrap();
        (0..WIDTH * HEIGHT).for_each(|i| out.extend_from_slice(ctx.logits(i)));
        next[seq as usize] = end;
        if seq == 0 {
            let state = ctx.state(Some(0)).unwrap();
            assert!(ctx.seq_rm(0, -1, -1));
            ctx.set_state(&state, Some(0)).unwrap();
        }
    }
    for (i, &token) in after.iter().enumerate() {
        let seq = (i % 2) as i32;
        ctx.decode(&[token], next[seq as usize], seq).unwrap();
        out.extend_from_slice(ctx.logits(0));
        next[seq as usize] += 1;
    }
    assert!(out.iter().all(|x| x.is_finite()), "a logit is not finite");
    (out, ctx.describe().map_or(0, |_| shrinks(&ctx).iter().sum()))
}

#[test]
fn images_among_text() {
    poison();
    let paths = models();
    for (of, image_sees_itself) in MODELS {
        let path = paths.iter().find(|p| name(p) == of).unwrap_or_else(|| panic!("upstream makes no {of} any more"));
        let model = Model::load(path).unwrap();
        let least = least_budget(path, N_CTX, &["--uniform", "4", "--parallel", "2"]).to_string();
        let wide = plan(path, N_CTX, &["--uniform", "16", "--parallel", "2"]);
        let narrow = plan(path, N_CTX, &["--uniform", "4", "--parallel", "2", "--budget", &least]);
        let [f32, f16, b16, b4] = [
            Cache::Plain(PlainType::F32),
            Cache::Plain(PlainType::F16),
            Cache::Plan(wide.0.clone()),
            Cache::Plan(narrow.0.clone()),
        ]
        .map(|cache| logits(&model, &cache, image_sees_itself));
        assert!(b16.1 == 0 && b4.1 > 0, "{of}: blocks narrowed: {} at 16 bits, {} at 4", b16.1, b4.1);
        let [f16, b16, b4] = [f16, b16, b4].map(|said| nmse(&f32.0, &said.0));
        println!("{of}: NMSE {f16:.1e} with f16, {b16:.1e} at 16 bits, {b4:.1e} at 4 in the least pool");
        assert!(b16 <= f16.max(1e-6), "{of}: NMSE {b16:.1e} at 16 bits, {f16:.1e} with f16");
        assert!(b4 < 1e-2, "{of}: NMSE {b4:.1e} at 4 bits");
        // what an image's tokens see of each other counts: it is no test of text alone
        let other = logits(&model, &Cache::Plain(PlainType::F32), !image_sees_itself);
        let other = nmse(&f32.0, &other.0);
        println!("{of}: {other:.1e} if the tokens of an image saw each other the other way");
        assert!(other > 1e-6, "{of}: causal or not, it is the same");
    }
}
