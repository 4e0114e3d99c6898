//! How many copies a state takes: an 8B model's shape with 32,768 tokens, without its memory.

use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK};
use pmkvq::kernels::RangeRule;
use pmkvq::policy::{CellView, Config, Initial, Policy, PoolConfig, Rule, SeqSet, SideConfig};
use pmkvq::state::{self, Head, Place, SideShape, Storage, META_ROW};

const N_CTX: u32 = 32_768;
const N_SIDES: usize = 64;
const N_HEAD: usize = 8;
const HEAD_DIM: usize = 128;

/// A cache that is not there: what is asked for is counted.
#[derive(Default, Clone, Copy)]
struct Counted {
    copies: usize,
    bytes: usize,
    most: usize,
    /// Copies if each run of rows, in all heads at once, was one.
    runs: usize,
}

impl Counted {
    fn count(&mut self, place: Place, rows: &[i32], bytes: usize) {
        let (heads, size) = match place {
            Place::Pool(_) => (N_HEAD, page_bytes(HEAD_DIM)),
            // parameters have all heads side by side
            Place::Meta(_) => (1, META_ROW),
        };
        assert_eq!(bytes, rows.len() * size);
        self.copies += 1;
        self.bytes += bytes;
        self.most = self.most.max(bytes);
        self.runs += (1 + rows.windows(2).filter(|r| r[1] != r[0] + 1).count()).div_ceil(heads);
    }
}

impl Storage for Counted {
    fn get(&mut self, place: Place, rows: &[i32], dst: &mut [u8]) -> Result<(), String> {
        self.count(place, rows, dst.len());
        Ok(())
    }

    fn set(&mut self, place: Place, rows: &[i32], src: &[u8]) -> Result<(), String> {
        self.count(place, rows, src.len());
        Ok(())
    }

    /// As llama.cpp has it on devices.
    fn in_hand(&self) -> usize {
        8 << 20
    }
}

struct Filled {
    policy: Policy,
    shapes: Vec<SideShape>,
    pos: Vec<i32>,
    seq: Vec<SeqSet>,
}

impl Filled {
    /// In ubatches of `n_batch` tokens, with no more pages than they need.
    fn new(final_width: Width, n_batch: usize) -> Filled {
        let n_blocks = N_CTX / BLOCK as u32 + 3;
        let side = |i: usize| SideConfig {
            pool: 0,
            final_width,
            shrinkable: true,
            loss: [0.0, 1.0, 2.0, 3.0 + i as f64],
            quota: n_blocks * 8,
        };
        let mut config = Config {
            n_ctx: N_CTX,
            n_blocks,
            n_seq_max: 1,
            sink: 4,
            window: 128,
            initial: Initial::Bits(Width::B16),
            rule: Rule::Block,
            sides: (0..N_SIDES).map(side).collect(),
            pools: vec![PoolConfig { n_pages: 1, bytes_per_page: 64 }],
        };
        config.pools[0].n_pages = config.least_pages()[0] as u32;
        let shape = |i: usize| SideShape {
            side: Side::BOTH[i % 2],
            n_head_kv: N_HEAD,
            head_dim: HEAD_DIM,
            group: if final_width == Width::B16 { 0 } else { HEAD_DIM },
            range: RangeRule::Fit,
            pool: 0,
            n_pages: config.pools[0].n_pages as usize,
            device: 0,
            params: i * params_bytes(n_blocks as usize, N_HEAD, 1),
        };
        let n = n_blocks as usize * BLOCK;
        let mut filled = Filled {
            shapes: (0..N_SIDES).map(shape).collect(),
            policy: Policy::new(config).unwrap(),
            pos: vec![-1; n],
            seq: vec![[0; 4]; n],
        };
        for first in (0..N_CTX as usize).step_by(n_batch) {
            let tokens: Vec<(i32, u32)> = (first..first + n_batch).map(|p| (p as i32, 0)).collect();
            let placed = filled.policy.place(filled.cells(), &tokens).unwrap();
            for (&c, t) in placed.iter().zip(&tokens) {
                filled.pos[c as usize] = t.0;
                filled.seq[c as usize] = [1, 0, 0, 0];
            }
            let Filled { policy, pos, seq, .. } = &mut filled;
            policy.plan_ubatch(CellView { pos, seq }, &placed).unwrap();
            policy.commit();
        }
        filled
    }

    fn cells(&self) -> CellView<'_> {
        CellView { pos: &self.pos, seq: &self.seq }
    }
}

/// Some MiB a copy, in and out, however the pages lie.
#[test]
fn copies_are_few() {
    let cases = [(Width::B16, 512), (Width::B16, 16), (Width::B8, 512), (Width::B4, 512), (Width::B2, 512)];
    for (width, n_batch) in cases {
        let filled = Filled::new(width, n_batch);
        let Filled { policy, shapes, pos, .. } = &filled;
        let word = |b: usize| (0..BLOCK).fold(0u128, |w, i| w | u128::from(pos[b * BLOCK + i] >= 0) << i);
        let saved: Vec<u128> = (0..pos.len() / BLOCK).map(word).collect();
        let tables = |side: usize, block: usize| -> BlockEntry { policy.table(side)[block] };
        let (mut out, mut bytes) = (Counted::default(), 0);
        struct Length<'a>(&'a mut usize);
        impl std::io::Write for Length<'_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                *self.0 += bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        state::save(shapes, &saved, &tables, &mut out, &mut Length(&mut bytes)).unwrap();

        // the same cells, as if they were fresh
        let head = Head::of(shapes, 0, &saved, 1, &tables).unwrap();
        let cells: Vec<u32> = (0..pos.len()).filter(|c| pos[*c] >= 0).map(|c| c as u32).collect();
        let fresh: Vec<u32> = (0..saved.len() as u32).collect();
        let mut back = Counted::default();
        state::restore(&head, shapes, &cells, &fresh, &tables, &mut back, &mut std::io::repeat(1)).unwrap();

        let held = policy.config().pools[0].n_pages as usize * N_HEAD * page_bytes(HEAD_DIM);
        println!(
            "to {width} bits, ubatches of {n_batch}, pool of {} MiB: a state of {} MiB in {} copies out ({} MiB, at most {:.1}) and {} in; by runs of pages {}",
            held >> 20, bytes >> 20, out.copies, out.bytes >> 20, out.most as f64 / (1 << 20) as f64, back.copies, out.runs
        );
        for counted in [out, back] {
            assert!(counted.bytes / counted.copies > 2 << 20, "{} copies of {} bytes", counted.copies, counted.bytes);
            assert!(counted.most < 9 << 20, "{} bytes in a copy", counted.most);
        }
    }
}
