//! The report as one HTML file: no external resources, no scripts, light or dark as the reader's system.

use std::fmt::Write;

use crate::{Report, WriteError, chart, review::Review, words};

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1c2024;--dim:#60646c;--line:#d9d9e0}
@media (prefers-color-scheme:dark){:root{--back:#111113;--text:#edeef0;--dim:#b0b4ba;--line:#43484e}}
body{font:15px/1.5 system-ui,sans-serif;background:var(--back);color:var(--text);max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left}p,.remarks,figcaption{color:var(--dim)}
figure{margin:1rem 0}svg{min-width:40rem;max-width:100%;height:auto}svg text{fill:var(--dim)}
figcaption{display:flex;flex-wrap:wrap;gap:0 1rem}.key{display:inline-block;width:1.2em;height:.25em;margin-right:.4em;vertical-align:middle}
td{white-space:nowrap}h1,h2,li{overflow-wrap:anywhere}.wide:focus-visible{outline:3px solid #3b7dd8}";

pub(crate) fn page(report: &Report) -> Result<String, WriteError> {
    // This policy keeps the page from fetching or running anything, even if a bug here lets markup through.
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>etcd capacity review</title>\
         <style>{STYLE}</style></head><body><main>\n<h1>etcd capacity review</h1>\n<p>{}</p>\n\
         <div class=\"wide\" role=\"region\" aria-label=\"All clusters\" tabindex=\"0\"><table><thead><tr>",
        escaped(&words::introduction(report))
    );
    for head in words::HEADS {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(head));
    }
    page.push_str("</tr></thead>\n");
    for review in &report.clusters {
        page.push_str("<tr>");
        for (index, cell) in words::row(review).into_iter().enumerate() {
            let (open, close) = if index == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
            let _ = write!(page, "<{open}>{}</{close}>", escaped(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    for review in &report.clusters {
        section(&mut page, report, review)?;
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

fn section(page: &mut String, report: &Report, review: &Review) -> Result<(), WriteError> {
    let _ = write!(page, "<h2>{}</h2>\n<ul>", escaped(&review.cluster));
    for one in &review.recommendations {
        let _ = write!(page, "<li><b>{}</b>: {}</li>", escaped(&one.action), escaped(&one.reason));
    }
    let label = escaped(&format!("Chart of {}", review.cluster));
    let _ = write!(page, "</ul>\n<figure><div class=\"wide\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\">");
    page.push_str(&named(&chart::sizes(review, report.frame)?, &review.cluster));
    page.push_str("</div><figcaption>");
    for (index, (name, colour)) in chart::KEYS.into_iter().enumerate() {
        // The last one is drawn only if there is a forecast.
        if index + 1 < chart::KEYS.len() || chart::has_forecast(review) {
            let _ = write!(page, "<span><span class=\"key\" style=\"background:{colour}\"></span>{name}</span>");
        }
    }
    page.push_str("</figcaption></figure>\n<ul class=\"remarks\">");
    for remark in words::remarks(review) {
        let _ = write!(page, "<li>{}</li>", escaped(&remark));
    }
    page.push_str("</ul>\n");
    Ok(())
}

/// The chart with an accessible name; the figures are in the table.
fn named(svg: &str, cluster: &str) -> String {
    let name = format!("Quota, file size and size in use of the fullest member of {cluster} over time");
    svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(&name)), 1)
}

/// Cluster and member names come from labels, so they may contain markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
