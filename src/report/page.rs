//! The page: one file that needs nothing else, readable on light and dark, printable.

use std::fmt::Write as _;

use super::figures::{Answers, Figures, Share, FAR};
use super::finding::Finding;
use super::number::{count, mean, percent, short, with_error};
use super::svg::{escape, Heat, Plot, Scale, Series};
use super::{CacheReport, NamedSensitivities, Report, TextReport};
use crate::bytes::human;
use crate::eval::{mean_bits, HeldLayer};
use crate::geometry::Width;

const STYLE: &str = "
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #5b6470; --line: #d8dde3; --panel: #f5f7f9;
  --c0: #6b7280; --c1: #0072b2; --c2: #d55e00; --c3: #009e73; --c4: #cc79a7; --c5: #b58900; --c6: #56b4e9; --c7: #7b3294; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --text: #e6e9ec; --soft: #9aa4af; --line: #333a42;
  --panel: #1c2126; --c0: #9ca3af; --c1: #4aa8e0; --c2: #f08c4a; --c3: #2fc69b; --c4: #e3a1c6; --c5: #e0b83c;
  --c6: #8fd0f5; --c7: #b98ad6; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; overflow: visible; } .legend svg { width: auto; }
svg text { fill: var(--soft); font-size: 11px; } .grid { stroke: var(--line); }
.series { fill: none; stroke-width: 1.6; } .series circle { fill: var(--back); stroke-dasharray: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1.2rem; padding: 0; margin: .3rem 0; color: var(--soft); }
.legend line { stroke-width: 2; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
pre, .answer { background: var(--panel); padding: .7rem 1rem; border-radius: 6px; }
pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; } .soft { color: var(--soft); }
";

/// The page of a report.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    // writing to a String does not fail
    let _ = page(report, &mut out);
    out
}

fn page(report: &Report, out: &mut String) -> std::fmt::Result {
    let preset = report.finding.as_ref().map_or(String::new(), |f| format!(", {}", f.preset));
    let title = escape(&format!("KV caches of {}{preset}", report.model.name));
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/><title>{title}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{title}</h1>"
    )?;
    if let Some(finding) = &report.finding {
        self::finding(finding, out)?;
    }
    for s in &report.sensitivities {
        out.push_str(&sensitivities(s));
    }
    for text in &report.texts {
        self::text(text, out)?;
    }
    made(report, out)?;
    writeln!(out, "</body></html>")
}

/// A table; cells are escaped here.
fn table(out: &mut String, caption: &str, head: &[&str], rows: &[Vec<String>]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "<div class=\"scroll\"><table><caption>{}</caption><thead><tr>", escape(caption))?;
    head.iter().try_for_each(|h| write!(out, "<th>{}</th>", escape(h)))?;
    writeln!(out, "</tr></thead><tbody>")?;
    for row in rows {
        write!(out, "<tr>")?;
        row.iter().try_for_each(|c| write!(out, "<td>{}</td>", escape(c)))?;
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn made(report: &Report, out: &mut String) -> std::fmt::Result {
    let (m, model) = (&report.made, &report.model);
    writeln!(out, "<h2>How this was made</h2><pre>{}</pre>", escape(&m.command))?;
    let mut rows = vec![
        ["date", m.date.as_str()].map(String::from).to_vec(),
        vec!["pmkvq".to_string(), m.pmkvq.clone()],
        vec![
            "llama.cpp".to_string(),
            format!("commit {} ({}), {} patches", m.llama_commit, m.llama_release, m.patches),
        ],
        vec!["llama.cpp, sha256 of archive".to_string(), m.llama_archive_sha256.clone()],
        vec!["llama.cpp, sha256 of contents".to_string(), m.llama_contents_sha256.clone()],
        vec!["CPU".to_string(), format!("{}; kernels {}; {} thread(s) used", m.cpu, m.kernels, report.threads)],
        vec!["step".to_string(), format!("{} token(s) decoded at once", report.step)],
        vec![
            "model".to_string(),
            format!("{} ({}, {} layers with a KV cache), {} bytes", model.file, model.arch, model.layers, model.bytes),
        ],
        vec!["model, sha256".to_string(), model.sha256.clone()],
    ];
    for t in &report.texts {
        rows.push(vec![
            "text".to_string(),
            format!("{}: {} bytes read, {} passage(s), {} tokens scored", t.name, t.bytes, t.passages, t.tokens),
        ]);
        rows.push(vec!["text, sha256".to_string(), t.sha256.clone()]);
    }
    table(out, "Versions and identities", &["what", "which"], &rows)
}

fn finding(f: &Finding, out: &mut String) -> std::fmt::Result {
    writeln!(out, "<h2>The question: {}</h2><p>{}</p><div class=\"answer\">", escape(&f.preset), escape(&f.question))?;
    f.answer.iter().try_for_each(|a| writeln!(out, "<p>{}</p>", escape(a)))?;
    writeln!(out, "</div>")?;
    out.push_str(&growth(f));
    let rows: Vec<Vec<String>> = f
        .comparisons
        .iter()
        .map(|c| {
            vec![
                c.text.clone(),
                format!("{} to {}", count(c.from), count(c.to)),
                c.a.clone(),
                c.b.clone(),
                short(c.kl_a),
                short(c.kl_b),
                mean(c.difference),
                c.verdict.words().to_string(),
                human(c.bytes_a),
                human(c.bytes_b),
            ]
        })
        .collect();
    let head = ["text", "positions", "a", "b", "KL of a", "KL of b", "a - b", "a is", "bytes of a", "bytes of b"];
    table(out, "Comparisons, mean KL divergence from the reference, nats", &head, &rows)?;
    let rows: Vec<Vec<String>> = f
        .attention
        .iter()
        .map(|a| {
            vec![
                a.cache.clone(),
                a.text.clone(),
                a.layer.to_string(),
                a.queries.to_string(),
                short(a.tv),
                short(a.kl),
                format!("{} ({})", short(a.worst_tv), a.worst_head),
            ]
        })
        .collect();
    let head = ["cache", "text", "layer", "queries", "total variation", "KL, nats", "worst head's variation"];
    table(out, "Attention's distance from the 16-bit cache's, by layer", &head, &rows)?;
    let rows: Vec<Vec<String>> = f
        .correlations
        .iter()
        .map(|c| {
            let r = c.with_depth.map_or("-".to_string(), |r| format!("{r:+.2}"));
            vec![c.label.clone(), c.side.to_string(), c.width.to_string(), r]
        })
        .collect();
    table(out, "Rank correlation of sensitivity with depth", &["sensitivities", "side", "bits", "Spearman"], &rows)
}

/// Divergence over position, both axes logarithmic.
fn growth(f: &Finding) -> String {
    let mut out = String::new();
    let mut caches: Vec<&str> = Vec::new();
    for g in &f.growth {
        if !caches.contains(&g.cache.as_str()) {
            caches.push(&g.cache);
        }
    }
    for (what, y_label) in [("output", "KL divergence, nats"), ("attention", "total variation")] {
        let series: Vec<Series> = f
            .growth
            .iter()
            .filter(|g| g.what == what)
            .map(|g| Series {
                label: format!("{} ({}, slope {})", g.cache, g.text, with_error(g.slope, g.se)),
                index: 1 + caches.iter().position(|c| *c == g.cache).unwrap_or(0),
                points: g.points.clone(),
            })
            .collect();
        if !series.is_empty() {
            let title = format!("Does the {what}'s divergence grow?");
            out += &Plot { title, x_label: "position", y_label, x: Scale::Log, y: Scale::Log, y_text: short, series }
                .html();
        }
    }
    out
}

fn sensitivities(s: &NamedSensitivities) -> String {
    let widths = s.values.widths.iter().enumerate().filter(|(_, w)| **w != Width::B16);
    let series = widths.flat_map(|(i, w)| {
        let line = |side: &str, shift: usize, of: fn(&crate::sensitivity::LayerSensitivity) -> &Vec<f64>| Series {
            label: format!("{side} at {w} bits"),
            index: 2 * i + shift,
            points: s.values.layers.iter().filter_map(|l| Some((f64::from(l.il), of(l).get(i).copied()?))).collect(),
        };
        [line("K", 0, |l| &l.k), line("V", 1, |l| &l.v)]
    });
    Plot {
        title: format!("Sensitivity by layer: {} ({}, {})", s.label, s.values.method, s.values.source),
        x_label: "layer",
        y_label: "sensitivity",
        x: Scale::Linear,
        y: Scale::Log,
        y_text: short,
        series: series.collect(),
    }
    .html()
}

fn text(t: &TextReport, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Text: {}</h2><p class=\"soft\">{} passage(s), {} tokens, contexts of {} tokens; divergence is from the \
         first cache, {}.</p>",
        escape(&t.name),
        count(t.passages),
        count(t.tokens),
        count(t.n_ctx as usize),
        escape(t.caches.first().map_or("", |c| &c.label))
    )?;
    summary(t, out)?;
    plots(t, out);
    t.caches.iter().filter(|c| c.held.iter().any(|h| !h.layers.is_empty())).for_each(|c| out.push_str(&heat(c)));
    intervals(t, out)
}

/// Right of all, or a dash.
fn share(right: usize, all: usize) -> String {
    match Share::of(right, all) {
        Some(s) => {
            let se = s.se.map_or(String::new(), |se| format!(" ± {:.2}", 100.0 * se));
            format!("{}{se} ({right}/{all})", percent(s.share))
        }
        None => "-".to_string(),
    }
}

/// Kinds of questions on a text, in order.
fn kinds(t: &TextReport) -> Vec<&str> {
    t.caches.first().map_or(Vec::new(), |c| c.all.answers.keys().map(String::as_str).collect())
}

fn answers(f: &Figures, kind: &str) -> Answers {
    f.answers.get(kind).copied().unwrap_or_default()
}

fn same_top(f: &Figures) -> String {
    let se = f.same_top.se.map_or(String::new(), |se| format!(" ± {:.2}", 100.0 * se));
    format!("{}{se}", percent(f.same_top.mean))
}

fn bits(x: Option<f64>) -> String {
    x.map_or("-".to_string(), |x| format!("{x:.2}"))
}

fn summary(t: &TextReport, out: &mut String) -> std::fmt::Result {
    let kinds = kinds(t);
    let mut head: Vec<String> =
        ["cache", "bits, all", "bits, history", "bytes", "KL", "KL, last eighth", "KL p99"].map(String::from).to_vec();
    head.extend(["same top", "perplexity", "ln ratio"].map(String::from));
    for kind in &kinds {
        head.extend([kind.to_string(), format!("{kind}, far"), format!("{kind}, lost/gained")]);
    }
    head.push("first shrink".to_string());
    head.push("seconds".to_string());
    let row = |c: &CacheReport| {
        let last = c.held.last();
        let mut row = vec![
            c.label.clone(),
            format!("{:.2}", c.bits_all),
            bits(last.and_then(|h| h.bits_history())),
            human(last.map_or(0, |h| h.bytes_total)),
            with_error(c.all.kl.mean, c.all.kl.se),
            with_error(c.last_eighth.kl.mean, c.last_eighth.kl.se),
            short(c.all.kl.p99),
            same_top(&c.all),
            format!("{:.4}", c.all.perplexity),
            mean(c.all.log_ratio),
        ];
        for kind in &kinds {
            let a = answers(&c.all, kind);
            row.extend([share(a.right, a.all), share(a.far_right, a.far_all), format!("{}/{}", a.lost, a.gained)]);
        }
        row.push(c.first_shrink.map_or("-".to_string(), count));
        row.push(format!("{:.0}", c.seconds));
        row
    };
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(out, "All positions", &head, &t.caches.iter().map(row).collect::<Vec<_>>())?;
    where_bytes_are(t, out)?;
    let what: Vec<Vec<String>> = t.caches.iter().map(|c| vec![c.label.clone(), c.what.clone()]).collect();
    table(out, "The caches", &["cache", "what it is"], &what)?;
    writeln!(
        out,
        "<p class=\"soft\">KL: mean KL divergence of the next token's distribution from the first cache's, nats, ± \
         standard error. Bits, all: everything that is allocated, per value of a full context; bits, history: codes and \
         parameters of what lies outside sink and window. far: the key lies more than {} tokens back. lost, gained: \
         answers that the first cache gives and this one does not, and the other way about. docs/report.md defines every \
         number.</p>",
        count(FAR)
    )
}

/// Parts of the bytes at the end of the longest passage: what the 16-bit window costs is shown apart.
fn where_bytes_are(t: &TextReport, out: &mut String) -> std::fmt::Result {
    let rows = t.caches.iter().filter_map(|c| {
        let h = c.held.last()?;
        let in_use = h.bytes_held.saturating_sub(h.bytes_tables + h.bytes_scratch);
        let recent = (h.recent_bits / 8).min(in_use);
        let free = h.bytes_total.saturating_sub(h.bytes_held);
        let share = recent as f64 / h.bytes_total.max(1) as f64;
        let mut row = vec![c.label.clone()];
        row.extend([h.bytes_total, in_use - recent, recent, free, h.bytes_tables, h.bytes_scratch].map(human));
        row.push(percent(share));
        Some(row)
    });
    let head =
        ["cache", "allocated", "codes of history", "sink, window, open block", "free pages", "tables, parameters"];
    let head = [&head[..], &["scratch", "window's share"]].concat();
    table(out, "Where the bytes are, at the end of the longest passage", &head, &rows.collect::<Vec<_>>())
}

/// One line per cache.
fn lines(t: &TextReport, skip: usize, points: impl Fn(&CacheReport) -> Vec<(f64, f64)>) -> Vec<Series> {
    let series = t.caches.iter().enumerate().skip(skip);
    series.map(|(index, c)| Series { label: c.label.clone(), index, points: points(c) }).collect()
}

fn plots(t: &TextReport, out: &mut String) {
    let middle = |from: usize, to: usize| (from + to) as f64 / 2.0;
    let mut plot = |title: &str, y_label, y, y_text: fn(f64) -> String, series: Vec<Series>| {
        if series.iter().any(|s| !s.points.is_empty()) {
            let title = title.to_string();
            *out += &Plot { title, x_label: "position", y_label, x: Scale::Linear, y, y_text, series }.html();
        }
    };
    plot(
        "KL divergence over position",
        "nats",
        Scale::Log,
        short,
        lines(t, 1, |c| c.curve.iter().map(|b| (middle(b.from, b.to), b.kl)).collect()),
    );
    plot(
        "Perplexity by interval",
        "perplexity",
        Scale::Tight,
        short,
        lines(t, 0, |c| c.intervals.iter().map(|f| (middle(f.from, f.to), f.perplexity)).collect()),
    );
    plot(
        "What the cache costs in perplexity: ln(perplexity / the first cache's) by interval",
        "nats",
        Scale::Tight,
        short,
        lines(t, 1, |c| c.intervals.iter().map(|f| (middle(f.from, f.to), f.log_ratio.mean)).collect()),
    );
    for kind in kinds(t) {
        let right = |c: &CacheReport| {
            let of = |f: &Figures| {
                let a = answers(f, kind);
                Some((middle(f.from, f.to), Share::of(a.right, a.all)?.share))
            };
            c.intervals.iter().filter_map(of).collect()
        };
        plot(&format!("Answers right, {kind}, by interval"), "share", Scale::Linear, percent, lines(t, 0, right));
    }
    plot(
        "Bytes in use",
        "bytes",
        Scale::Linear,
        |b| human(b.max(0.0) as u64),
        lines(t, 0, |c| c.held.iter().map(|h| (h.tokens as f64, h.bytes_held as f64)).collect()),
    );
}

fn heat(c: &CacheReport) -> String {
    let layers = c.held.iter().map(|h| h.layers.len()).max().unwrap_or(0);
    let row = |i: usize, side: &str, of: fn(&HeldLayer) -> &[u64; 4]| {
        let il = c.held.iter().find_map(|h| h.layers.get(i)).map_or(0, |l| l.il);
        let cells = c.held.iter().map(|h| h.layers.get(i).and_then(|l| mean_bits(of(l))));
        (format!("{il} {side}"), cells.collect())
    };
    let rows = (0..layers).flat_map(|i| [row(i, "K", |l| &l.k), row(i, "V", |l| &l.v)]);
    Heat {
        title: format!("Mean bits of what is stored, by layer: {}", c.label),
        columns: c.held.iter().map(|h| h.tokens).collect(),
        rows: rows.collect(),
    }
    .html()
}

fn intervals(t: &TextReport, out: &mut String) -> std::fmt::Result {
    let kinds = kinds(t);
    let mut head: Vec<&str> = vec!["positions", "tokens", "KL", "median", "p90", "p99", "p99.9", "max", "same top"];
    head.extend(["perplexity", "ln ratio", "bytes in use", "bits, history", "bits of K/V by layer"]);
    head.extend(&kinds);
    for c in &t.caches {
        let row = |name: String, f: &Figures| {
            let held = f.held.as_ref();
            let widths: Vec<String> =
                held.map_or(Vec::new(), |h| h.widths.iter().map(|w| format!("{:.0}/{:.0}", w.k, w.v)).collect());
            let mut row = vec![
                name,
                count(f.predictions),
                with_error(f.kl.mean, f.kl.se),
                short(f.kl.median),
                short(f.kl.p90),
                short(f.kl.p99),
                short(f.kl.p999),
                short(f.kl.max),
                same_top(f),
                format!("{:.4}{}", f.perplexity, f.perplexity_se.map_or(String::new(), |se| format!(" ± {se:.4}"))),
                mean(f.log_ratio),
                held.map_or("-".to_string(), |h| human(h.bytes_held)),
                bits(held.and_then(|h| h.bits_history)),
                widths.join(" "),
            ];
            row.extend(kinds.iter().map(|kind| {
                let a = answers(f, kind);
                share(a.right, a.all)
            }));
            row
        };
        let mut rows: Vec<Vec<String>> =
            c.intervals.iter().map(|f| row(format!("{} to {}", count(f.from), count(f.to)), f)).collect();
        rows.push(row("last eighth".to_string(), &c.last_eighth));
        rows.push(row("all".to_string(), &c.all));
        table(out, &c.label, &head, &rows)?;
    }
    Ok(())
}
