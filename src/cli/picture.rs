//! The frontier as a picture: SVG that stands by itself, without scripts, fonts or styles from elsewhere.

use std::fmt::Write as _;

/// A plan in the picture.
pub struct Mark {
    pub bytes: f64,
    pub loss: f64,
    /// Beside the mark; may be empty.
    pub label: String,
    /// What a reader is shown who points at it.
    pub title: String,
}

pub struct Frontier {
    pub title: String,
    /// What the loss is.
    pub loss: String,
    /// Values of a full context: bytes * 8 / values are the bits of the upper axis.
    pub n_values: f64,
    pub planned: Vec<Mark>,
    pub uniform: Vec<Mark>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 64.0;
/// Letters that have room beside the axis of the loss.
const MOST_LOSS: usize = 52;
/// Decades below the least loss drawn, where no loss at all has its place.
const BELOW: f64 = 0.8;

/// Ten to whole powers, or a part of the way between two where there are few.
struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    fn place(&self, loss: f64) -> f64 {
        let at = if loss > 0.0 { (loss.log10() - self.low) / (self.high - self.low) } else { 0.0 };
        HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM)
    }
}

impl Frontier {
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // writing to a String does not fail
        let _ = self.write(&mut out);
        out
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.planned.iter().chain(&self.uniform)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let losses = || self.marks().map(|m| m.loss).filter(|l| *l > 0.0);
        let zero = self.marks().any(|m| m.loss <= 0.0);
        let (least, most) = (losses().fold(f64::INFINITY, f64::min), losses().fold(0.0, f64::max));
        let (low, high) = if most > 0.0 { (least.log10(), most.log10()) } else { (-1.0, 0.0) };
        let margin = 0.06 * (high - low).max(0.5);
        let y = LogAxis { low: low - if zero { BELOW } else { margin }, high: high + margin };
        let widest = self.marks().map(|m| m.bytes).fold(1.0, f64::max) * 1.04;
        let x = |bytes: f64| LEFT + bytes / widest * (WIDTH - LEFT - RIGHT);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
        )?;
        writeln!(out, "<title>{}</title>", escape(&self.title))?;
        writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>")?;
        writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            escape(&self.title)
        )?;

        // bytes below, bits per value above
        let (unit, name) = unit(widest);
        let step = nice(widest / unit / 7.0);
        for i in 0..=(widest / unit / step) as usize {
            let (value, at) = (i as f64 * step, x(i as f64 * step * unit));
            writeln!(out, "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>")?;
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                short(value)
            )?;
        }
        let middle = (LEFT + right) / 2.0;
        writeln!(
            out,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">memory of the KV cache, everything counted ({name})</text>",
            bottom + 40.0
        )?;
        let bits = widest * 8.0 / self.n_values.max(1.0);
        let step = nice(bits / 8.0);
        for i in 0..=(bits / step) as usize {
            let at = x(i as f64 * step * self.n_values / 8.0);
            writeln!(out, "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{TOP}\" stroke=\"#888\"/>", TOP - 5.0)?;
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                TOP - 9.0,
                short(i as f64 * step)
            )?;
        }
        writeln!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">bits per value</text>", TOP - 27.0)?;

        // loss
        for power in y.low.ceil() as i32..=y.high.floor() as i32 {
            self.level(out, y.place(10f64.powi(power)), &power_of_ten(power))?;
        }
        if y.high.floor() - y.low.ceil() < 1.0 && most > 0.0 {
            // less than two powers of ten: the ends say more
            for loss in [least, most] {
                self.level(out, y.place(loss), &format!("{loss:.2e}"))?;
            }
        }
        if zero {
            self.level(out, y.place(0.0), "0")?;
        }
        let (at, centre) = (20.0, (TOP + bottom) / 2.0);
        writeln!(
            out,
            "<text x=\"{at}\" y=\"{centre}\" text-anchor=\"middle\" transform=\"rotate(-90 {at} {centre})\">{}</text>",
            escape(&cut(&self.loss, MOST_LOSS))
        )?;
        writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#888\"/>",
            right - LEFT,
            bottom - TOP
        )?;

        // a budget buys what the last solved one below it bought: steps
        let mut path = String::new();
        for (i, m) in self.planned.iter().enumerate() {
            let (at, height) = (x(m.bytes), y.place(m.loss));
            match i {
                0 => write!(path, "M{at:.1} {height:.1}")?,
                _ => write!(path, "H{at:.1}V{height:.1}")?,
            }
        }
        writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"#1668b8\" stroke-width=\"1.5\"/>")?;
        for m in &self.planned {
            let (at, height) = (x(m.bytes), y.place(m.loss));
            writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"4\" fill=\"#1668b8\"><title>{}</title></circle>",
                escape(&m.title)
            )?;
        }
        for m in &self.uniform {
            let (at, height) = (x(m.bytes), y.place(m.loss));
            writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"#fff\" stroke=\"#c2410c\" stroke-width=\"2\"><title>{}</title></rect>",
                at - 4.5,
                height - 4.5,
                escape(&m.title)
            )?;
            // to the left of a mark that leaves no room on the right
            let (shift, anchor) = if at > right - 60.0 { (-9.0, "end") } else { (9.0, "start") };
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#c2410c\" stroke=\"#fff\" \
                 stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
                at + shift,
                height - 6.0,
                escape(&m.label)
            )?;
        }

        // what is what
        let key = right - 150.0;
        writeln!(out, "<circle cx=\"{key}\" cy=\"{}\" r=\"4\" fill=\"#1668b8\"/>", TOP + 18.0)?;
        writeln!(out, "<text x=\"{}\" y=\"{}\">planned</text>", key + 12.0, TOP + 22.0)?;
        writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"9\" height=\"9\" fill=\"#fff\" stroke=\"#c2410c\" stroke-width=\"2\"/>",
            key - 4.5,
            TOP + 33.5
        )?;
        writeln!(out, "<text x=\"{}\" y=\"{}\">uniform</text>", key + 12.0, TOP + 42.0)?;
        writeln!(out, "</svg>")
    }

    fn level(&self, out: &mut String, height: f64, label: &str) -> std::fmt::Result {
        let right = WIDTH - RIGHT;
        writeln!(out, "<line x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{right}\" y2=\"{height:.1}\" stroke=\"#e4e4e4\"/>")?;
        writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 7.0, height + 4.0)
    }
}

/// `1e-5` as people write it, with digits that every font has.
fn power_of_ten(power: i32) -> String {
    match power {
        -3..=3 => short(10f64.powi(power)),
        _ => format!("1e{power}"),
    }
}

/// The unit that such a size is given in.
fn unit(bytes: f64) -> (f64, &'static str) {
    let units = [(1024f64.powi(4), "TiB"), (1024f64.powi(3), "GiB"), (1024f64.powi(2), "MiB"), (1024.0, "KiB")];
    units.into_iter().find(|(size, _)| bytes >= *size).unwrap_or((1.0, "bytes"))
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// A text of so many letters at most.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text[..end].trim_end()),
        None => text.to_string(),
    }
}

/// A number without digits that say nothing.
fn short(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Names come from files: nothing in them may end a text or begin an element.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // XML has no place for these, written out or not
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
