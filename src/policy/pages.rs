//! Arithmetic of pages: which subtiles a page covers, and the pages of a pool that nobody has.

use crate::geometry::Width;

/// Pages that the subtiles of a mask take at a width.
pub fn count(mask: u8, width: Width) -> u32 {
    let touched = match width {
        Width::B16 => mask,
        Width::B8 => (mask | mask >> 1) & 0x55,
        Width::B4 => (mask | mask >> 1 | mask >> 2 | mask >> 3) & 0x11,
        Width::B2 => u8::from(mask != 0),
    };
    touched.count_ones()
}

/// The subtiles that page `page` of a block covers at a width.
pub fn covered(page: usize, width: Width) -> u8 {
    let n = width.subtiles_per_page();
    let all = (1u16 << n) - 1;
    (all << (page * n)) as u8
}

/// All subtiles of the pages that a mask touches at a width.
pub fn whole(mask: u8, width: Width) -> u8 {
    (0..width.pages()).map(|p| covered(p, width)).filter(|c| c & mask != 0).fold(0, |all, c| all | c)
}

/// The free pages of a pool. While a ubatch is staged the list itself stays as it is: pages are taken from its end by
/// counting, so that dropping the stage needs no undoing.
pub struct Pool {
    pub n_pages: u32,
    pub free: Vec<i32>,
}

impl Pool {
    /// All pages free; low numbers are handed out first.
    pub fn new(n_pages: u32) -> Pool {
        Pool { n_pages, free: (0..n_pages as i32).rev().collect() }
    }

    pub fn used(&self) -> u32 {
        self.n_pages - self.free.len() as u32
    }
}

/// Pages that change hands in one pool while a ubatch is staged.
#[derive(Default)]
pub struct Exchange {
    /// Pages given up by blocks, to be taken again in this ubatch or to become free at its commit.
    pub freed: Vec<i32>,
    /// Pages taken from the end of the pool's free list.
    pub taken: usize,
}

impl Exchange {
    pub fn clear(&mut self) {
        self.freed.clear();
        self.taken = 0;
    }

    /// A page for a new cell; `None` if the pool has none left.
    pub fn take(&mut self, pool: &Pool) -> Option<i32> {
        if self.taken < pool.free.len() {
            self.taken += 1;
            return Some(pool.free[pool.free.len() - self.taken]);
        }
        self.freed.pop()
    }

    pub fn apply(&mut self, pool: &mut Pool) {
        pool.free.truncate(pool.free.len() - self.taken);
        pool.free.append(&mut self.freed);
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_the_pages_that_cover_a_mask() {
        for mask in 0..=255u8 {
            for w in Width::ALL {
                let slow = (0..w.pages()).filter(|&p| covered(p, w) & mask != 0).count() as u32;
                assert_eq!(count(mask, w), slow, "mask {mask:#b} at {w} bits");
                assert_eq!(whole(mask, w) & mask, mask);
                assert_eq!(count(whole(mask, w), w), slow);
            }
        }
    }

    #[test]
    fn covers_partition_the_block() {
        for w in Width::ALL {
            let covers: Vec<u8> = (0..w.pages()).map(|p| covered(p, w)).collect();
            assert_eq!(covers.iter().fold(0, |a, c| a | c), 0xff);
            assert_eq!(covers.iter().map(|c| c.count_ones()).sum::<u32>(), 8);
        }
    }
}
