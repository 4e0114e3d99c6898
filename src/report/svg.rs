//! Plots as inline SVG: no scripts, fonts or files from elsewhere; colours are the page's variables.

use std::fmt::Write as _;

use super::number::{count, short};

/// Text that stands in HTML or in an attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

/// Colours of the page's style; lines beyond them are dashed.
pub const COLOURS: usize = 8;

const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

/// A line of a plot.
pub struct Series {
    pub label: String,
    /// Chooses colour and dashes; the same cache has the same in every plot.
    pub index: usize,
    pub points: Vec<(f64, f64)>,
}

impl Series {
    fn style(index: usize) -> String {
        let dash = DASHES[index / COLOURS % DASHES.len()];
        format!("stroke:var(--c{});stroke-dasharray:{dash}", index % COLOURS)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// As tight as the data.
    Tight,
    Log,
}

pub struct Plot {
    pub title: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub x: Scale,
    pub y: Scale,
    /// How a value of y is written.
    pub y_text: fn(f64) -> String,
    pub series: Vec<Series>,
}

const W: f64 = 900.0;
const H: f64 = 340.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// An axis: where values lie between 0 and 1.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Axis {
        let usable = values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0));
        let (mut low, mut high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        match scale {
            Scale::Linear => low = low.min(0.0),
            Scale::Tight => {
                let margin = 0.05 * (high - low);
                (low, high) = (low - margin, high + margin);
            }
            // twelve decades show all that differs; what is less is rounding
            Scale::Log => low = low.max(high * 1e-12),
        }
        if high <= low {
            (low, high) = match scale {
                Scale::Log => (low / 2.0, low * 2.0),
                _ => (low - 0.5, low + 0.5),
            };
        }
        Axis { scale, low, high }
    }

    /// None for what a logarithmic axis can't show.
    fn at(&self, v: f64) -> Option<f64> {
        if !v.is_finite() || self.scale == Scale::Log && v < self.low {
            return None;
        }
        Some(match self.scale {
            Scale::Log => (v / self.low).ln() / (self.high / self.low).ln(),
            _ => (v - self.low) / (self.high - self.low),
        })
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Log => {
                let decades = (self.high / self.low).log10();
                let steps: &[f64] = if decades < 1.5 {
                    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
                } else if decades < 4.0 {
                    &[1.0, 3.0]
                } else {
                    &[1.0]
                };
                let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let all = powers.flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)));
                all.filter(|t| (self.low..=self.high).contains(t)).collect()
            }
            _ => {
                let rough = (self.high - self.low) / 6.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
                let first = (self.low / step).ceil() as i64;
                (first..=(self.high / step).floor() as i64).map(|i| i as f64 * step).collect()
            }
        }
    }
}

impl Plot {
    /// A figure: heading, legend, picture.
    pub fn html(&self) -> String {
        let mut out = String::new();
        // writing to a String does not fail
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let x = Axis::new(self.x, self.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)));
        let y = Axis::new(self.y, self.series.iter().flat_map(|s| s.points.iter().map(|p| p.1)));
        let px = |v: f64| x.at(v).map(|t| LEFT + t * (W - LEFT - RIGHT));
        let py = |v: f64| y.at(v).map(|t| H - BOTTOM - t * (H - TOP - BOTTOM));
        writeln!(out, "<figure><figcaption>{}</figcaption>", escape(&self.title))?;
        writeln!(out, "<ul class=\"legend\">")?;
        for s in &self.series {
            writeln!(
                out,
                "<li><svg viewBox=\"0 0 26 8\" width=\"26\" height=\"8\" aria-hidden=\"true\"><line x1=\"0\" y1=\"4\" \
                 x2=\"26\" y2=\"4\" style=\"{}\"/></svg> {}</li>",
                Series::style(s.index),
                escape(&s.label)
            )?;
        }
        writeln!(out, "</ul>")?;
        writeln!(out, "<svg viewBox=\"0 0 {W} {H}\" role=\"img\" aria-label=\"{}\">", escape(&self.title))?;
        for t in x.ticks() {
            let Some(at) = px(t) else { continue };
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"/><text x=\"{at:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                H - BOTTOM,
                H - BOTTOM + 16.0,
                count(t.max(0.0).round() as usize)
            )?;
        }
        for t in y.ticks() {
            let Some(at) = py(t) else { continue };
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                W - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.y_text)(t))
            )?;
        }
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text transform=\"translate(13 {:.1}) \
             rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + W - RIGHT) / 2.0,
            H - 8.0,
            escape(self.x_label),
            (H - BOTTOM + TOP) / 2.0,
            escape(self.y_label)
        )?;
        for s in &self.series {
            self.line(out, s, &px, &py)?;
        }
        writeln!(out, "</svg></figure>")
    }

    fn line(
        &self,
        out: &mut String,
        series: &Series,
        px: &dyn Fn(f64) -> Option<f64>,
        py: &dyn Fn(f64) -> Option<f64>,
    ) -> std::fmt::Result {
        let label = escape(&series.label);
        writeln!(out, "<g class=\"series\" style=\"{}\"><title>{label}</title>", Series::style(series.index))?;
        let place = |p: &(f64, f64)| Some((px(p.0)?, py(p.1)?));
        let placed: Vec<Option<(f64, f64)>> = series.points.iter().map(place).collect();
        // the line is broken where a point can't be shown
        for part in placed.split(Option::is_none).filter(|part| part.len() > 1) {
            let points: Vec<String> = part.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(out, "<polyline points=\"{}\"/>", points.join(" "))?;
        }
        for (value, at) in series.points.iter().zip(&placed) {
            let Some((x, y)) = at else { continue };
            let (at, value) = (count(value.0.max(0.0).round() as usize), escape(&(self.y_text)(value.1)));
            writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"><title>{label}, {at}: {value}</title></circle>"
            )?;
        }
        writeln!(out, "</g>")
    }
}

/// Mean bits by layer and side (rows) over position (columns).
pub struct Heat {
    pub title: String,
    /// Ends of the columns, tokens.
    pub columns: Vec<usize>,
    /// Name, and mean bits of every column; none where nothing is stored.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Heat {
    pub fn html(&self) -> String {
        let mut out = String::new();
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        const LINE: f64 = 14.0;
        let height = TOP + LINE * self.rows.len() as f64 + BOTTOM;
        let last = self.columns.last().copied().unwrap_or(1).max(1) as f64;
        let px = |tokens: usize| LEFT + tokens as f64 / last * (W - LEFT - RIGHT);
        writeln!(out, "<figure><figcaption>{}</figcaption><ul class=\"legend\">", escape(&self.title))?;
        for bits in [16.0, 8.0, 4.0, 2.0] {
            writeln!(
                out,
                "<li><svg viewBox=\"0 0 14 10\" width=\"14\" height=\"10\" aria-hidden=\"true\"><rect width=\"14\" \
                 height=\"10\" fill=\"{}\"/></svg> {bits} bits</li>",
                fill(bits)
            )?;
        }
        writeln!(out, "</ul>")?;
        writeln!(out, "<svg viewBox=\"0 0 {W} {height}\" role=\"img\" aria-label=\"{}\">", escape(&self.title))?;
        for (r, (name, cells)) in self.rows.iter().enumerate() {
            let y = TOP + LINE * r as f64;
            writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 11.0,
                escape(name)
            )?;
            let mut from = 0;
            let mut columns = self.columns.iter().zip(cells).peekable();
            while let Some((&to, bits)) = columns.next() {
                let same = |bits: &Option<f64>| bits.map(|b| (b * 10.0).round());
                // one rectangle for neighbours that look the same
                if columns.peek().is_some_and(|next| same(next.1) == same(bits)) {
                    continue;
                }
                let (a, b) = (px(from), px(to));
                if let Some(bits) = bits {
                    writeln!(
                        out,
                        "<rect x=\"{a:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"><title>{}, {} \
                         tokens: {} bits</title></rect>",
                        // no gaps between columns
                        b - a + 0.4,
                        LINE - 1.0,
                        fill(*bits),
                        escape(name),
                        count(to),
                        short(*bits)
                    )?;
                }
                from = to;
            }
        }
        let axis = Axis::new(Scale::Linear, [0.0, last].into_iter());
        for t in axis.ticks() {
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                px(t as usize),
                height - BOTTOM + 16.0,
                count(t as usize)
            )?;
        }
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">tokens in the cache</text>",
            (LEFT + W - RIGHT) / 2.0,
            height - 8.0
        )?;
        writeln!(out, "</svg></figure>")
    }
}

/// A colour for mean bits: dark blue at 16 over green to yellow at 2, readable on light and dark.
fn fill(bits: f64) -> String {
    let t = (bits.clamp(2.0, 16.0) / 2.0).log2() / 3.0;
    format!("hsl({:.0} {:.0}% {:.0}%)", 48.0 + 180.0 * t, 85.0 - 20.0 * t, 58.0 - 22.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_by_hand() {
        let linear = Axis::new(Scale::Linear, [3.0, 10.0].into_iter());
        assert_eq!((linear.at(0.0), linear.at(5.0), linear.at(10.0)), (Some(0.0), Some(0.5), Some(1.0)));
        assert_eq!(linear.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let log = Axis::new(Scale::Log, [0.0, 0.01, 1.0, f64::NAN].into_iter());
        assert!((log.at(0.1).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!((log.at(0.0), log.at(f64::NAN), log.at(0.001)), (None, None, None));
        for scale in [Scale::Linear, Scale::Tight, Scale::Log] {
            // nothing, one value, one value twice: an axis all the same
            for values in [&[][..], &[5.0], &[5.0, 5.0], &[0.0]] {
                let axis = Axis::new(scale, values.iter().copied());
                assert!(axis.high > axis.low, "{scale:?} {values:?}");
                assert!(axis.ticks().len() < 40);
            }
        }
    }

    #[test]
    fn every_point_is_there_and_lines_break() {
        let points = vec![(1.0, 0.5), (2.0, 0.25), (3.0, 0.0), (4.0, 0.125), (5.0, 0.1)];
        let plot = Plot {
            title: "a < b".to_string(),
            x_label: "x",
            y_label: "y",
            x: Scale::Linear,
            y: Scale::Log,
            y_text: short,
            series: vec![Series { label: "\"s\" & t".to_string(), index: 9, points }],
        };
        let html = plot.html();
        // 0 can't be shown on a logarithmic axis
        assert_eq!((html.matches("<circle").count(), html.matches("<polyline").count()), (4, 2));
        assert!(html.contains("a &lt; b") && html.contains("&quot;s&quot; &amp; t"));
        assert!(html.contains("stroke:var(--c1);stroke-dasharray:6 3"));
    }
}
