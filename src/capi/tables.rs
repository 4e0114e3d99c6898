//! Tables on their way to the devices that read them.

use super::cache::{get_mut, Cache};
use super::guard;
use super::types::{CacheHandle, TableChange};
use crate::geometry::BlockEntry;

/// Unchanged entries between two changed ones that are sent along rather than begin another copy.
const GAP: u32 = 8;

impl Cache {
    /// Entries of `side` from `first` on, `n` of them, as a change.
    fn change(&self, side: usize, first: u32, n: u32) -> TableChange {
        let entries = &self.policy.table(side)[first as usize..(first + n) as usize];
        let entry = std::mem::size_of::<BlockEntry>() as u64;
        TableChange {
            data: entries.as_ptr(),
            offset: self.sides[side].offset + u64::from(first) * entry,
            size: u64::from(n) * entry,
        }
    }

    /// What changed on a device since it was last asked for.
    fn take_changes(&mut self, device: u32, gap: u32) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.clear();
        if std::mem::take(&mut self.stale[device as usize]) {
            let sides = (0..self.sides.len()).filter(|side| self.device(*side) == device);
            changes.extend(sides.map(|side| self.change(side, 0, self.layout.n_blocks)));
        } else {
            let dirty = self.policy.dirty().iter().filter(|(side, _)| self.device(*side as usize) == device);
            let mut dirty: Vec<(u32, u32)> = dirty.copied().collect();
            dirty.sort_unstable();
            let runs = dirty.chunk_by(|a, b| a.0 == b.0 && b.1 - a.1 <= 1 + gap);
            changes.extend(runs.map(|run| {
                let ((side, first), (_, last)) = (run[0], run[run.len() - 1]);
                self.change(side as usize, first, last - first + 1)
            }));
        }
        self.changes = changes;
    }
}

/// # Safety
/// `cache` comes from `cache_new`, `device` is one of its devices; `meta` is writable for what `cache_meta_bytes` gives, and
/// no kernel reads it.
pub unsafe extern "C" fn sync_table(cache: *mut CacheHandle, device: u32, meta: *mut u8) {
    guard((), || {
        let cache = get_mut(cache);
        cache.take_changes(device, 0);
        for change in &cache.changes {
            // SAFETY: the meta buffer holds a table of n_blocks entries at the offset of every side of the device
            meta.add(change.offset as usize).copy_from_nonoverlapping(change.data.cast(), change.size as usize);
        }
    });
}

/// # Safety
/// `cache` comes from `cache_new`, `device` is one of its devices; `changes` is writable. What is returned holds until the
/// next call with the cache.
pub unsafe extern "C" fn table_changes(cache: *mut CacheHandle, device: u32, changes: *mut *const TableChange) -> u32 {
    guard(0, || {
        let cache = get_mut(cache);
        cache.take_changes(device, GAP);
        *changes = cache.changes.as_ptr();
        cache.changes.len() as u32
    })
}
