//! The byte accounting: an example worked out by hand, and what holds for every model, context and plan.

use pmkvq::bytes::{n_blocks, Layout, LayoutParams};
use pmkvq::geometry::{Width, BLOCK};

use super::rng::{seeds, Rng};
use super::samples;

#[test]
fn an_example_by_hand() {
    let shape = samples::shape(1, 2, 128);
    let params = LayoutParams { scratch_bytes: 1000, ..samples::params(1000) };
    let layout = Layout::new(&shape, &[Width::B4, Width::B2], &params);
    // 1,000 tokens are 8 blocks; one for the sink, one that is partly filled
    assert_eq!(layout.n_blocks, 10);
    // 2 heads * 32 * 128
    assert_eq!(layout.pools.len(), 1);
    assert_eq!(layout.pools[0].page_row_bytes, 8192);
    let pages = |i: usize| (layout.sides[i].least_pages, layout.sides[i].comfortable_pages, layout.sides[i].full_pages);
    // 10 blocks * 2 pages; 2 blocks (open, window) 6 pages wider, and one for the sink; 10 * 8
    assert_eq!(pages(0), (20, 20 + 2 * 6 + 1, 80));
    assert_eq!(pages(1), (10, 10 + 2 * 7 + 1, 80));
    // 10 * 36 = 360 in steps of 64, for K and for V; 10 blocks * 2 heads * 1 group * (min, max) * 128 tokens * 2 bytes
    assert_eq!(layout.table_bytes, 2 * 384);
    assert_eq!(layout.params_bytes, 2 * 10_240);
    assert_eq!(layout.fixed_bytes, 768 + 20_480 + 1000);
    assert_eq!(layout.least_budget(), 30 * 8192 + 22_248);
    assert_eq!(layout.comfortable_budget(), 58 * 8192 + 22_248);
    assert_eq!(layout.full_budget(), 160 * 8192 + 22_248);
    assert_eq!(layout.least_bytes(0), 20 * 8192 + 384 + 10_240);
    // 1,000 tokens * 2 heads * 128 values, K and V
    assert_eq!(layout.n_values, 512_000);
    assert_eq!(layout.f16_bytes, 1_024_000);
    // 28 pages over the least; K lacks 60 to be at 16 bits throughout, V 70
    assert_eq!(layout.pool_pages(497_384 + 8191).unwrap(), [58]);
    assert_eq!(layout.quotas(&[58]), [20 + 12, 10 + 15]);
    let parts = layout.breakdown(&[58]);
    assert_eq!((parts.pages, parts.tables, parts.params, parts.scratch), (475_136, 768, 20_480, 1000));
    assert_eq!(parts.total(), 497_384);
}

#[test]
fn a_side_without_a_group_stays_at_16_bits() {
    // 72 is no multiple of 16; 80 has a group of 80
    let mut shape = samples::shape(1, 1, 72);
    shape.layers[0].head_dim_v = 80;
    let layout = Layout::new(&shape, &[Width::B2; 2], &samples::params(1000));
    let (k, v) = (&layout.sides[0], &layout.sides[1]);
    assert_eq!((k.group, k.final_width, k.params_bytes), (0, Width::B16, 0));
    assert_eq!((k.least_pages, k.comfortable_pages, k.full_pages), (80, 80, 80));
    assert_eq!((v.group, v.n_groups, v.final_width), (80, 1, Width::B2));
    assert_eq!(layout.pools.len(), 2);
}

#[test]
fn devices_have_pools_of_their_own() {
    let shape = samples::shape(4, 2, 128);
    let params = samples::params(4096);
    let widths = [Width::B4; 8];
    let one = Layout::new(&shape, &widths, &params);
    let two = Layout::on_devices(&shape, &widths, &params, &[0, 1, 1, 1]);
    let pools: Vec<u32> = two.pools.iter().map(|p| p.device).collect();
    assert_eq!(pools, [0, 1]);
    assert_eq!(two.sides.iter().map(|s| s.pool).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(two.least_budget(), one.least_budget());
    assert_eq!(two.full_budget(), one.full_budget());
    // a quarter of the layers gets a quarter of the pages, to a page
    let pages = two.pool_pages(one.comfortable_budget()).unwrap();
    assert_eq!(pages.iter().sum::<u32>(), one.pool_pages(one.comfortable_budget()).unwrap()[0]);
    assert!((3 * pages[0]).abs_diff(pages[1]) <= 3, "{pages:?}");
}

#[test]
fn two_pools_share_what_is_left() {
    // K of 64 and V of 128: pages of 2,048 and 4,096 bytes
    let mut shape = samples::shape(1, 1, 64);
    shape.layers[0].head_dim_v = 128;
    let layout = Layout::new(&shape, &[Width::B2; 2], &samples::params(1280));
    assert_eq!(layout.n_blocks, 12);
    let least = layout.least_budget();
    assert_eq!(layout.pool_pages(least).unwrap(), [12, 12]);
    // both lack 15 pages to be comfortable: 15 * (2,048 + 4,096) bytes; a third of it is 5 pages for each
    assert_eq!(layout.pool_pages(least + 5 * 6144).unwrap(), [17, 17]);
    // what rounding leaves over buys the smaller page
    assert_eq!(layout.pool_pages(least + 5 * 6144 + 2048).unwrap(), [18, 17]);
    assert_eq!(layout.pool_pages(least + 5 * 6144 + 2047).unwrap(), [17, 17]);
    assert_eq!(layout.pool_pages(layout.comfortable_budget()).unwrap(), [27, 27]);
    assert_eq!(layout.pool_pages(u64::MAX).unwrap(), [96, 96]);
}

#[test]
fn cells_for_every_sequence() {
    // tokens, sinks, a partly filled block per sequence
    assert_eq!(n_blocks(128, 1, 0), 1 + 1 + 1);
    assert_eq!(n_blocks(129, 1, 1), 2 + 1 + 1);
    assert_eq!(n_blocks(128, 4, 33), 1 + 2 + 4);
    assert_eq!(n_blocks(u32::MAX, 256, 1024), 33_554_432 + 2048 + 256);
}

#[test]
fn every_budget_is_used_and_none_is_exceeded() {
    for seed in seeds(1, 2000) {
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 8);
        let params = samples::random_params(&mut rng);
        let widths: Vec<Width> = (0..2 * shape.layers.len()).map(|_| rng.pick(&Width::ALL)).collect();
        let layout = Layout::new(&shape, &widths, &params);
        let (least, comfortable, full) = (layout.least_budget(), layout.comfortable_budget(), layout.full_budget());
        assert!(least <= comfortable && comfortable <= full, "seed {seed}");
        assert!(u64::from(layout.n_blocks) * BLOCK as u64 >= u64::from(params.n_ctx));
        let e = layout.pool_pages(least - 1).unwrap_err();
        assert_eq!((e.budget, e.least), (least - 1, least));
        assert!(e.to_string().contains(&least.to_string()), "{e}");

        let budget = match rng.below(8) {
            0 => least,
            1 => comfortable,
            2 => full,
            3 => full + rng.below(1 << 30) as u64,
            _ => least + rng.next() % (full - least + 1),
        };
        let pages = layout.pool_pages(budget).unwrap();
        let total = layout.breakdown(&pages).total();
        assert!(total <= budget, "seed {seed}: {total} of {budget}");
        let mut lacks = vec![0u64; pages.len()];
        let mut needs = vec![0u64; pages.len()];
        for side in &layout.sides {
            lacks[side.pool] += side.full_pages;
            needs[side.pool] += side.least_pages;
        }
        let quotas = layout.quotas(&pages);
        let mut quota_of = vec![0u64; pages.len()];
        for (side, quota) in layout.sides.iter().zip(&quotas) {
            assert!((side.least_pages..=side.full_pages).contains(&u64::from(*quota)), "seed {seed}");
            quota_of[side.pool] += u64::from(*quota);
        }
        for (i, pool) in layout.pools.iter().enumerate() {
            let n = u64::from(pages[i]);
            assert!((needs[i]..=lacks[i]).contains(&n), "seed {seed}");
            // a pool that could still use a page has no room for one
            assert!(n == lacks[i] || budget - total < pool.page_row_bytes, "seed {seed}: {} unused", budget - total);
            assert!(quota_of[i] <= n && n - quota_of[i] < 1 + layout.sides.len() as u64, "seed {seed}");
        }
        // more budget never means fewer pages in all
        let more = layout.pool_pages(budget + rng.below(1 << 24) as u64).unwrap();
        assert!(layout.breakdown(&more).total() >= total, "seed {seed}");
    }
}

#[test]
fn absurd_shapes_do_not_overflow() {
    let mut shape = samples::shape(1024, 1024, 4096);
    shape.layers[7].head_dim_k = u32::MAX;
    shape.layers[7].n_head_kv = u32::MAX;
    let params = LayoutParams {
        n_ctx: u32::MAX,
        n_seq_max: 256,
        sink: 1024,
        window: u32::MAX,
        group: 16,
        scratch_bytes: u64::MAX,
        transform_bytes: u64::MAX,
    };
    let layout = Layout::new(&shape, &[Width::B2; 2048], &params);
    assert_eq!(layout.full_budget(), u64::MAX);
    assert!(layout.least_budget() <= layout.comfortable_budget());
    assert_eq!(layout.breakdown(&vec![i32::MAX as u32; layout.pools.len()]).total(), u64::MAX);
}
