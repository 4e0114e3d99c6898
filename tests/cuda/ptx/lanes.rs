//! Registers of a warp, 32 lanes side by side, and operations on all of them at once.

use crate::program::{Ins, Reg};
use crate::warp::Warp;

/// A predicate of each lane as bits.
#[inline(always)]
pub fn bits(f: impl Fn(usize) -> bool) -> u32 {
    let mut bytes = [0u8; 32];
    for (l, b) in bytes.iter_mut().enumerate() {
        *b = f(l) as u8;
    }
    let mut m = 0u32;
    for (i, part) in bytes.chunks_exact(8).enumerate() {
        let x = u64::from_le_bytes([part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7]]);
        m |= ((x.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32) << (8 * i);
    }
    m
}

/// The lanes of a mask.
pub fn each(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let l = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(l)
    })
}

impl Warp {
    #[inline(always)]
    pub fn r32(&self, r: Reg) -> &[u32; 32] {
        // SAFETY: decode and allocate give places within the warp's registers and the kernel's constants
        unsafe {
            let p = if r >= 0 { self.regs32.as_ptr().add(r as usize) } else { self.k32.add(!r as usize) };
            &*p
        }
    }

    #[inline(always)]
    pub fn r64(&self, r: Reg) -> &[u64; 32] {
        // SAFETY: as above
        unsafe {
            let p = if r >= 0 { self.regs64.as_ptr().add(r as usize) } else { self.k64.add(!r as usize) };
            &*p
        }
    }

    #[inline(always)]
    pub fn put32(&mut self, r: Reg, m: u32, v: &[u32; 32]) {
        // SAFETY: as above
        let d = unsafe { self.regs32.get_unchecked_mut(r as usize) };
        if m == u32::MAX {
            *d = *v;
        } else {
            for l in 0..32 {
                d[l] = if m >> l & 1 != 0 { v[l] } else { d[l] };
            }
        }
    }

    #[inline(always)]
    pub fn put64(&mut self, r: Reg, m: u32, v: &[u64; 32]) {
        // SAFETY: as above
        let d = unsafe { self.regs64.get_unchecked_mut(r as usize) };
        if m == u32::MAX {
            *d = *v;
        } else {
            for l in 0..32 {
                d[l] = if m >> l & 1 != 0 { v[l] } else { d[l] };
            }
        }
    }

    #[inline(always)]
    pub fn pred(&self, r: Reg) -> u32 {
        if r >= 0 {
            // SAFETY: as above
            unsafe { *self.preds.get_unchecked(r as usize) }
        } else {
            // constants: false, true
            if r == -1 {
                0
            } else {
                u32::MAX
            }
        }
    }

    #[inline(always)]
    pub fn put_pred(&mut self, r: Reg, m: u32, v: u32) {
        // SAFETY: as above
        let d = unsafe { self.preds.get_unchecked_mut(r as usize) };
        *d = *d & !m | v & m;
    }

    #[inline(always)]
    pub fn map1(&mut self, i: &Ins, m: u32, f: impl Fn(u32) -> u32) {
        let a = self.r32(i.a);
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = f(a[l]);
        }
        self.put32(i.d, m, &v);
    }

    #[inline(always)]
    pub fn map2(&mut self, i: &Ins, m: u32, f: impl Fn(u32, u32) -> u32) {
        let (a, b) = (self.r32(i.a), self.r32(i.b));
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l]);
        }
        self.put32(i.d, m, &v);
    }

    #[inline(always)]
    pub fn map3(&mut self, i: &Ins, m: u32, f: impl Fn(u32, u32, u32) -> u32) {
        let (a, b, c) = (self.r32(i.a), self.r32(i.b), self.r32(i.c));
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l], c[l]);
        }
        self.put32(i.d, m, &v);
    }

    #[inline(always)]
    pub fn wide1(&mut self, i: &Ins, m: u32, f: impl Fn(u64) -> u64) {
        let a = self.r64(i.a);
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l]);
        }
        self.put64(i.d, m, &v);
    }

    #[inline(always)]
    pub fn wide2(&mut self, i: &Ins, m: u32, f: impl Fn(u64, u64) -> u64) {
        let (a, b) = (self.r64(i.a), self.r64(i.b));
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l]);
        }
        self.put64(i.d, m, &v);
    }

    #[inline(always)]
    pub fn wide3(&mut self, i: &Ins, m: u32, f: impl Fn(u64, u64, u64) -> u64) {
        let (a, b, c) = (self.r64(i.a), self.r64(i.b), self.r64(i.c));
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l], c[l]);
        }
        self.put64(i.d, m, &v);
    }

    /// 32 bits to 64.
    #[inline(always)]
    pub fn widen1(&mut self, i: &Ins, m: u32, f: impl Fn(u32) -> u64) {
        let a = self.r32(i.a);
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l]);
        }
        self.put64(i.d, m, &v);
    }

    #[inline(always)]
    pub fn widen2(&mut self, i: &Ins, m: u32, f: impl Fn(u32, u32) -> u64) {
        let (a, b) = (self.r32(i.a), self.r32(i.b));
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l]);
        }
        self.put64(i.d, m, &v);
    }

    /// Two of 32 bits and one of 64.
    #[inline(always)]
    pub fn widen3(&mut self, i: &Ins, m: u32, f: impl Fn(u32, u32, u64) -> u64) {
        let (a, b, c) = (self.r32(i.a), self.r32(i.b), self.r64(i.c));
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l], c[l]);
        }
        self.put64(i.d, m, &v);
    }

    #[inline(always)]
    pub fn narrow1(&mut self, i: &Ins, m: u32, f: impl Fn(u64) -> u32) {
        let a = self.r64(i.a);
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = f(a[l]);
        }
        self.put32(i.d, m, &v);
    }

    /// 64 bits and a count of 32.
    #[inline(always)]
    pub fn shift64(&mut self, i: &Ins, m: u32, f: impl Fn(u64, u32) -> u64) {
        let (a, b) = (self.r64(i.a), self.r32(i.b));
        let mut v = [0u64; 32];
        for l in 0..32 {
            v[l] = f(a[l], b[l]);
        }
        self.put64(i.d, m, &v);
    }

    /// A comparison, joined with a predicate where there is one: `c`, by `imm` (1 and, 2 or, 3 xor). The opposite goes to `list`'s.
    #[inline(always)]
    pub fn compare(&mut self, i: &Ins, m: u32, f: impl Fn(u32, u32) -> bool) {
        let (a, b) = (self.r32(i.a), self.r32(i.b));
        let v = bits(|l| f(a[l], b[l]));
        self.put_compared(i, m, v);
    }

    #[inline(always)]
    pub fn compare64(&mut self, i: &Ins, m: u32, f: impl Fn(u64, u64) -> bool) {
        let (a, b) = (self.r64(i.a), self.r64(i.b));
        let v = bits(|l| f(a[l], b[l]));
        self.put_compared(i, m, v);
    }

    #[inline(always)]
    fn put_compared(&mut self, i: &Ins, m: u32, v: u32) {
        let c = if i.imm == 0 { 0 } else { self.pred(i.c) };
        let c = if i.size != 0 { !c } else { c };
        let join = |v: u32| match i.imm {
            1 => v & c,
            2 => v | c,
            3 => v ^ c,
            _ => v,
        };
        if i.count != 0 {
            self.put_pred(i.list as Reg, m, join(!v));
        }
        self.put_pred(i.d, m, join(v));
    }
}
