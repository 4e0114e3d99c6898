//! Who touched each word of shared memory since the last barrier: another warp, or another lane of the warp without a syncwarp between,
//! must not touch it too if one of them writes something new.

#[derive(Clone, Copy)]
pub struct Who {
    /// From 1 on.
    pub warp: u32,
    /// Of the warp: how many times its lanes have come together.
    pub sync: u32,
    pub lane: u32,
}

/// More than one warp, or lane. A lane of this number is all of them.
pub const SEVERAL: u32 = 0xff;

/// From above: barriers, warp, syncs, lane. 0: nobody.
type Tag = u64;

pub struct Races {
    wrote: Vec<Tag>,
    read: Vec<Tag>,
    /// Barriers so far; 0: races are not looked for.
    now: u64,
    barriers: u64,
}

fn warp(tag: Tag) -> u32 {
    (tag >> 32) as u32 & 0xff
}

fn sync(tag: Tag) -> u32 {
    (tag >> 8) as u32 & 0xff_ffff
}

fn lane(tag: Tag) -> u32 {
    tag as u32 & 0xff
}

impl Races {
    pub fn new(words: usize) -> Races {
        Races { wrote: vec![0; words], read: vec![0; words], now: 0, barriers: 0 }
    }

    /// All warps have come together.
    pub fn pass_barrier(&mut self) {
        self.barriers += 1;
        if self.barriers >> 24 != 0 {
            self.wrote.fill(0);
            self.read.fill(0);
            self.barriers = 1;
        }
        self.now = self.barriers;
    }

    /// A part of the warps has: who waited for whom is not known any more.
    pub fn pass_part(&mut self) {
        self.now = 0;
    }

    fn tag(&self, who: Who) -> Tag {
        self.now << 40 | (who.warp as u64) << 32 | ((who.sync & 0xff_ffff) as u64) << 8 | who.lane as u64
    }

    /// Whether somebody else has left the tag, and nothing was waited for since.
    fn is_other(&self, tag: Tag, who: Who) -> bool {
        tag >> 40 == self.now && (warp(tag) != who.warp || sync(tag) == who.sync & 0xff_ffff && lane(tag) != who.lane)
    }

    /// Words that are read: who wrote one just now, for people.
    pub fn read(&mut self, words: std::ops::Range<usize>, who: Who) -> Result<(), String> {
        if self.now == 0 {
            return Ok(());
        }
        for w in words {
            let tag = self.wrote[w];
            if self.is_other(tag, who) {
                let (warp, lane) = (warp(tag) - 1, lane(tag));
                return Err(format!(
                    "a race: reads byte {} of shared memory, which lane {lane} of warp {warp} wrote",
                    4 * w
                ));
            }
            let (old, mut new) = (self.read[w], who);
            if old >> 40 == self.now {
                if warp(old) != who.warp {
                    new.warp = SEVERAL;
                } else if sync(old) == who.sync & 0xff_ffff && lane(old) != who.lane {
                    new.lane = SEVERAL;
                }
            }
            self.read[w] = self.tag(new);
        }
        Ok(())
    }

    /// Words that are written: whether somebody else touched one just now.
    pub fn write(&mut self, words: std::ops::Range<usize>, who: Who) -> bool {
        if self.now == 0 {
            return false;
        }
        let tag = self.tag(who);
        let mut others = false;
        for w in words {
            others |= self.is_other(self.wrote[w], who) || self.is_other(self.read[w], who);
            self.wrote[w] = tag;
        }
        others
    }
}
