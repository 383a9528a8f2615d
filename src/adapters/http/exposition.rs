//! The format of the metrics, and whether they are compressed, negotiated with the scraper.

use std::{
    fmt,
    io::{self, BufWriter, IntoInnerError, Write},
};

use flate2::{Compression, write::GzEncoder};

/// The compressor gets pieces of this size: one call per word would cost more than the compression itself.
const PIECE_BYTES: usize = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpositionFormat {
    OpenMetrics1,
    OpenMetrics0,
    Text1,
    Text0,
}

impl ExpositionFormat {
    /// The format that the header prefers; the oldest one, which every scraper since 2014 understands, if the header
    /// names none that is supported.
    pub(super) fn of(accept: &str) -> Self {
        let mut best = (0.0, Self::Text0);
        for range in accept.split(',') {
            let Some(range) = Range::parse(range) else { continue };
            let format = match (range.kind.as_str(), range.version) {
                ("application/openmetrics-text", Some("1.0.0")) => Self::OpenMetrics1,
                ("application/openmetrics-text", None | Some("0.0.1")) => Self::OpenMetrics0,
                ("text/plain", Some("1.0.0")) => Self::Text1,
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", None) => Self::Text0,
                _ => continue,
            };
            // The first of several with the same weight.
            if range.weight > best.0 {
                best = (range.weight, format);
            }
        }
        best.1
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics0 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Self::Text1 => "text/plain; version=1.0.0; charset=utf-8",
            Self::Text0 => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    fn is_open_metrics(self) -> bool {
        matches!(self, Self::OpenMetrics1 | Self::OpenMetrics0)
    }

    /// The registry's page, written in OpenMetrics, converted to this format.
    fn page(self, open_metrics: String) -> String {
        // All names are classic ones, for which both text formats are the same.
        if self.is_open_metrics() { open_metrics } else { to_plain_text(&open_metrics) }
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    kind: String,
    version: Option<&'a str>,
    weight: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next()?.to_ascii_lowercase();
        let (mut version, mut weight) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value.trim().trim_matches('"')),
                "q" => weight = value.trim().parse().unwrap_or(0.0),
                _ => {}
            }
        }
        Some(Self { kind, version, weight })
    }
}

fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').filter_map(Range::parse).any(|range| range.kind == "gzip" && range.weight > 0.0)
}

/// Receives a page in OpenMetrics and produces it in the scraper's format. If it is to be compressed, that happens
/// while it is written, so that the megabytes of a large fleet are never in memory as text.
pub(super) struct ExpositionPage {
    format: ExpositionFormat,
    gzip: bool,
    body: Body,
}

enum Body {
    Text(String),
    Compressed(BufWriter<GzEncoder<Vec<u8>>>),
}

impl ExpositionPage {
    pub(super) fn new(accept: &str, accept_encoding: &str) -> Self {
        let (format, gzip) = (ExpositionFormat::of(accept), takes_gzip(accept_encoding));
        let body =
            if gzip && format.is_open_metrics() { Body::Compressed(gzip_encoder()) } else { Body::Text(String::new()) };
        Self { format, gzip, body }
    }

    pub(super) fn content_type(&self) -> &'static str {
        self.format.content_type()
    }

    /// Whether [`ExpositionPage::finish`] returns it compressed.
    pub(super) fn is_gzip(&self) -> bool {
        self.gzip
    }

    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        let mut gzip_encoder = match self.body {
            Body::Compressed(gzip_encoder) => gzip_encoder,
            Body::Text(text) => {
                let text = self.format.page(text);
                if !self.gzip {
                    return Ok(text.into_bytes());
                }
                let mut gzip_encoder = gzip_encoder();
                gzip_encoder.write_all(text.as_bytes())?;
                gzip_encoder
            }
        };
        gzip_encoder.flush()?;
        gzip_encoder.into_inner().map_err(IntoInnerError::into_error)?.finish()
    }
}

impl fmt::Write for ExpositionPage {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match &mut self.body {
            Body::Text(page) => page.write_str(text),
            // Writing to memory does not fail.
            Body::Compressed(gzip_encoder) => gzip_encoder.write_all(text.as_bytes()).map_err(|_| fmt::Error),
        }
    }
}

/// Fast rather than small.
fn gzip_encoder() -> BufWriter<GzEncoder<Vec<u8>>> {
    BufWriter::with_capacity(PIECE_BYTES, GzEncoder::new(Vec::new(), Compression::fast()))
}

/// Rewrites OpenMetrics to the text format 0.0.4: families of counters end in `_total`, units and the end mark are
/// left out, `unknown` becomes `untyped`. Samples are the same in both.
fn to_plain_text(open_metrics: &str) -> String {
    let types: std::collections::HashMap<&str, &str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut plain = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            plain.push_str(line);
            plain.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(keyword @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let suffix = match types.get(name) {
            Some(&"counter") => "_total",
            Some(&"info") => "_info",
            _ => "",
        };
        let rest = match (keyword, rest) {
            ("TYPE", "unknown") => "untyped",
            ("TYPE", "info" | "stateset") => "gauge",
            (_, rest) => rest,
        };
        for part in ["# ", keyword, " ", name, suffix, " ", rest, "\n"] {
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_format_has_the_same_samples_under_its_own_names() {
        let open = "# HELP a_bytes Size.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes{x=\"# TYPE y\"} 1.0\n\
                    # HELP b Count.\n# TYPE b counter\nb_total 2\n# HELP c C.\n# TYPE c unknown\nc 3\n# EOF\n";
        let plain = "# HELP a_bytes Size.\n# TYPE a_bytes gauge\na_bytes{x=\"# TYPE y\"} 1.0\n\
                     # HELP b_total Count.\n# TYPE b_total counter\nb_total 2\n# HELP c C.\n# TYPE c untyped\nc 3\n";
        assert_eq!(to_plain_text(open), plain);
    }

    #[test]
    fn every_scraper_gets_the_newest_format_that_it_prefers() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus_3, ExpositionFormat::OpenMetrics1),
            (
                "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ExpositionFormat::OpenMetrics0,
            ),
            ("application/openmetrics-text", ExpositionFormat::OpenMetrics0),
            ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.5", ExpositionFormat::Text0),
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
                ExpositionFormat::Text1,
            ),
            ("text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9", ExpositionFormat::Text0),
            ("application/openmetrics-text;version=1.0.0;q=0", ExpositionFormat::Text0),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", ExpositionFormat::Text0),
            ("*/*", ExpositionFormat::Text0),
            ("", ExpositionFormat::Text0),
            (";;;=,,q=;", ExpositionFormat::Text0),
        ] {
            assert_eq!(ExpositionFormat::of(accept), format, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_only_if_accepted_and_decompresses_to_the_same() {
        for (header, takes) in
            [("gzip", true), ("deflate, gzip;q=0.5", true), ("gzip;q=0", false), ("identity", false), ("", false)]
        {
            assert_eq!(takes_gzip(header), takes, "{header}");
        }
        // In one piece, in pieces of some bytes, and more than the compressor's own piece.
        let metrics = "# TYPE a gauge\na 1\n".repeat(4000);
        for (accept, whole) in [("application/openmetrics-text", metrics.clone()), ("", to_plain_text(&metrics))] {
            let mut page = ExpositionPage::new(accept, "gzip");
            for piece in metrics.split_inclusive(' ') {
                fmt::Write::write_str(&mut page, piece).expect("written");
            }
            assert!(page.is_gzip());
            let compressed = page.finish().expect("compressed");
            assert!(compressed.len() < metrics.len() / 10);
            let mut unpacked = String::new();
            io::Read::read_to_string(&mut flate2::read::GzDecoder::new(compressed.as_slice()), &mut unpacked)
                .expect("gzip");
            assert_eq!(unpacked, whole);

            let mut page = ExpositionPage::new(accept, "");
            fmt::Write::write_str(&mut page, &metrics).expect("written");
            assert!(!page.is_gzip());
            assert_eq!(page.finish().expect("text"), whole.as_bytes());
        }
    }
}
