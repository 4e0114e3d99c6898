//! States and shifted positions inside llama.cpp: what comes back goes on as if nothing had happened, at every width.

use super::common::*;
use pmkvq::ffi::{Cache, Context, Model, PlainType};

const N_CTX: u32 = 1024;

/// A plan that is short of room, so that blocks of every width are saved.
fn tight(n_seq: u32, extra: u64, args: &[&str]) -> Temporary {
    let parallel = n_seq.to_string();
    let args = [args, &["--parallel", &parallel]].concat();
    let budget = (least_budget(&model_path(), N_CTX, &args) + extra).to_string();
    plan(&model_path(), N_CTX, &[&args[..], &["--budget", &budget]].concat())
}

fn open<'m>(model: &'m Model, plan: &Temporary, n_seq: u32) -> Context<'m> {
    context(model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, n_seq, 512))
}

/// Decodes `tokens` from position `pos` on, in steps, and returns what was said.
fn go_on(ctx: &mut Context, tokens: &[i32], pos: i32, seq: i32) -> Vec<f32> {
    let (mut out, mut at) = (Vec::new(), 0);
    for n in [1, 1, 30].into_iter().cycle() {
        let n = n.min(tokens.len() - at);
        if n == 0 {
            return out;
        }
        ctx.decode(&tokens[at..at + n], pos + at as i32, seq).unwrap();
        out.extend(log_probs(ctx, n));
        at += n;
    }
    out
}

#[test]
fn a_saved_sequence_goes_on_bit_for_bit() {
    let model = shipped();
    let tokens = text(&model, 30_000, 1000);
    for (width, extra) in [("8", 20_000), ("4", 50_000), ("2", 0), ("2", 300_000)] {
        let plan = tight(1, extra, &["--uniform", width]);
        let mut ctx = open(&model, &plan, 1);
        go_on(&mut ctx, &tokens[..850], 0, 0);
        let (one, all) = (ctx.state(Some(0)).unwrap(), ctx.state(None).unwrap());
        let narrow: u64 = tokens_by_width(&ctx)[1..].iter().sum();
        assert!(narrow > 0, "{width} bits: nothing is narrow");
        let want = go_on(&mut ctx, &tokens[850..1000], 850, 0);
        for (what, state, seq) in [("the sequence", &one, Some(0)), ("everything", &all, None)] {
            // a new context, then one that has gone on
            for mut other in [open(&model, &plan, 1), ctx_that_has_gone_on(&model, &plan, &tokens)] {
                other.set_state(state, seq).unwrap();
                assert_eq!(other.pos_max(0), 849);
                assert!(other.state(seq).unwrap() == *state, "{width} bits: {what} was restored and saves differently");
                let got = go_on(&mut other, &tokens[850..1000], 850, 0);
                assert!(got == want, "{width} bits: {what} goes on differently");
            }
        }
    }
}

fn ctx_that_has_gone_on<'m>(model: &'m Model, plan: &Temporary, tokens: &[i32]) -> Context<'m> {
    let mut ctx = open(model, plan, 1);
    go_on(&mut ctx, &tokens[300..900], 0, 0);
    ctx
}

/// A state is about as large as the cache holds it, not as 16 bits would be.
#[test]
fn states_are_as_small_as_the_cache() {
    let model = shipped();
    let tokens = text(&model, 30_000, 900);
    let size = |width| {
        let plan = plan(&model_path(), N_CTX, &["--uniform", width, "--static"]);
        let mut ctx = open(&model, &plan, 1);
        go_on(&mut ctx, &tokens, 0, 0);
        ctx.state(Some(0)).unwrap().len() as f64
    };
    let wide = size("16");
    // the sink, the window and the block that is being filled stay at 16 bits: up to 256 of 900 tokens
    for (width, most) in [("8", 0.70), ("4", 0.53), ("2", 0.45)] {
        let share = size(width) / wide;
        println!("{width} bits: {share:.3} of 16 bits");
        assert!(share < most, "a state at {width} bits takes {share} of one at 16");
    }
}

/// Into another sequence beside others, where there is less room: narrower, no worse than decoding there would be.
#[test]
fn a_state_fits_where_there_is_less_room() {
    let model = shipped();
    let tokens = text(&model, 40_000, 1000);
    let wide = tight(2, 2_000_000, &["--uniform", "2"]);
    let narrow = tight(2, 0, &["--uniform", "2"]);
    let mut from = open(&model, &wide, 2);
    go_on(&mut from, &tokens[..600], 0, 0);
    assert_eq!(tokens_by_width(&from)[1..], [0; 3]);
    let state = from.state(Some(0)).unwrap();
    let want = go_on(&mut from, &tokens[600..640], 600, 0);

    let mut restored = open(&model, &narrow, 2);
    go_on(&mut restored, &tokens[600..900], 0, 0);
    restored.set_state(&state, Some(1)).unwrap();
    assert!(tokens_by_width(&restored)[3] > 0, "nothing had to be narrow");
    let got = go_on(&mut restored, &tokens[600..640], 600, 1);

    let mut decoded = open(&model, &narrow, 2);
    go_on(&mut decoded, &tokens[600..900], 0, 0);
    go_on(&mut decoded, &tokens[..600], 0, 1);
    let there = go_on(&mut decoded, &tokens[600..640], 600, 1);

    let n = model.n_vocab();
    let (restored, decoded) = (mean(&divergences(&want, &got, n)), mean(&divergences(&want, &there, n)));
    println!("divergence from 16 bits: restored {restored:.2e}, decoded there {decoded:.2e}");
    assert!(restored <= 2.0 * decoded + 1e-6, "restored {restored}, decoded there {decoded}");
}

#[test]
fn a_state_that_does_not_fit_or_is_damaged_leaves_a_working_cache() {
    let model = shipped();
    let tokens = text(&model, 50_000, 1000);
    let plan = tight(2, 0, &["--uniform", "4"]);
    let mut ctx = open(&model, &plan, 2);
    go_on(&mut ctx, &tokens[..400], 0, 0);
    let good = ctx.state(Some(0)).unwrap();
    let all = ctx.state(None).unwrap();
    let mut plain = context(&model, &Cache::Plain(PlainType::F16), &sizes(N_CTX, 2, 512));
    go_on(&mut plain, &tokens[..400], 0, 0);
    let of_plain = plain.state(Some(0)).unwrap();

    go_on(&mut ctx, &tokens[..500], 0, 1);
    assert!(plain.set_state(&good, Some(1)).is_err(), "a plain cache took a plan's state");
    // what can't be right is refused before anything is given up
    assert!(ctx.set_state(&of_plain, Some(1)).is_err());
    assert_eq!(ctx.pos_max(1), 499, "a refused state cost a sequence");
    // cut short: at the head, among llama.cpp's own cells, within the data
    for n in [0, 1, 7, 100, good.len() / 200, good.len() / 2, good.len() - 1] {
        assert!(ctx.set_state(&good[..n], Some(1)).is_err(), "{n} of {} bytes were enough", good.len());
        assert_eq!(ctx.pos_max(0), 399, "{n} bytes: the other sequence changed");
    }
    // a cell of no position: behind the head come the number of streams, that of cells, and then the first position
    let word = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().unwrap()) as usize;
    let head = good.windows(7).position(|w| w == b"pmkvqst").unwrap();
    let (n_sides, n_blocks) = (word(head + 8), word(head + 12));
    let first = head + 24 + 12 * n_sides + n_blocks * (17 + n_sides) + 8;
    assert_eq!(word(first), 0, "the first token's position is not where it is looked for");
    let mut nowhere = good.clone();
    nowhere[first..first + 4].fill(0xff);
    assert!(ctx.set_state(&nowhere, Some(1)).is_err());
    assert_eq!(ctx.pos_max(1), -1, "some of a refused state stayed");
    // 400 and 800 tokens
    go_on(&mut ctx, &tokens[..600], 0, 1);
    assert!(ctx.set_state(&good, Some(1)).is_ok());
    let mut full = open(&model, &plan, 2);
    go_on(&mut full, &tokens[..700], 0, 0);
    assert!(full.set_state(&good, Some(1)).is_err(), "1,100 tokens can't fit");
    assert_eq!(full.pos_max(0), 699);
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let mut bytes = if seed % 2 == 0 { good.clone() } else { all.clone() };
        for _ in 0..1 + rng.below(4) {
            let end = rng.pick(&[60, 2000, bytes.len()]);
            let at = rng.below(end.min(bytes.len()));
            bytes[at] = rng.next() as u8;
        }
        let mut other = open(&model, &plan, 2);
        // an error, or other values
        let _ = other.set_state(&bytes, if seed % 2 == 0 { Some(1) } else { None });
        other.clear();
        go_on(&mut other, &tokens[..200], 0, 0);
    }
    let left = ctx.pos_max(0);
    go_on(&mut ctx, &tokens[400..420], left + 1, 0);
}

/// A state that was saved under other transforms would be read as nonsense.
#[test]
fn other_transforms_are_refused() {
    let model = shipped();
    let tokens = text(&model, 50_000, 300);
    let transforms = model_path().with_file_name("transforms.json");
    let with = plan(&model_path(), N_CTX, &["--uniform", "4", "--transforms", transforms.to_str().unwrap()]);
    let without = plan(&model_path(), N_CTX, &["--uniform", "4", "--transforms", "none"]);
    let mut from = open(&model, &with, 1);
    go_on(&mut from, &tokens, 0, 0);
    let state = from.state(Some(0)).unwrap();
    assert!(open(&model, &without, 1).set_state(&state, Some(0)).is_err());
    open(&model, &with, 1).set_state(&state, Some(0)).unwrap();
}

/// At 16 bits a shift is llama.cpp's own, but for rounding; narrower, it costs about what the width costs.
#[test]
fn a_context_that_shifts_says_what_a_plain_one_does() {
    let model = shipped();
    let tokens = text(&model, 70_000, 2000);
    let run = |cache: &Cache| {
        let mut ctx = context(&model, cache, &sizes(N_CTX, 1, 512));
        let (mut out, mut pos, mut at) = (Vec::new(), 0, 0);
        while at < tokens.len() {
            // as the programs do: half of what comes after the first tokens is forgotten, the rest moves up
            if pos + 50 > N_CTX as i32 {
                let n = (pos - 4) / 2;
                assert!(ctx.can_shift() && ctx.seq_rm(0, 4, 4 + n));
                ctx.seq_add(0, 4 + n, -1, -n);
                pos -= n;
            }
            ctx.decode(&tokens[at..at + 50], pos, 0).unwrap();
            out.extend(log_probs(&ctx, 50));
            (pos, at) = (pos + 50, at + 50);
        }
        out
    };
    let n = model.n_vocab();
    let want = run(&Cache::Plain(PlainType::F32));
    let of_f16 = mean(&divergences(&want, &run(&Cache::Plain(PlainType::F16)), n));
    for (width, most) in [("16", 2.0 * of_f16 + 1e-6), ("8", 1e-5), ("4", 1e-3), ("2", 3e-2)] {
        let plan = tight(1, 0, &["--uniform", width]);
        let kl = mean(&divergences(&want, &run(&Cache::Plan(plan.0.clone())), n));
        println!("{width} bits: divergence {kl:.2e} (f16 {of_f16:.2e})");
        assert!(kl <= most, "{width} bits: divergence {kl}");
    }
}
