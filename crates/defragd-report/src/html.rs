//! The report as one HTML file: no external resources, no scripts, light or dark as the reader's system.

use std::fmt::Write;

use crate::{
    Report, WriteError,
    chart::{self, Layout},
    review::Review,
    words,
};

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1c2024;--dim:#60646c;--line:#d9d9e0}
@media (prefers-color-scheme:dark){:root{--back:#111113;--text:#edeef0;--dim:#b0b4ba;--line:#43484e}}
body{font:15px/1.5 system-ui,sans-serif;background:var(--back);color:var(--text);max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}
.summary{font-size:1.2rem}.about,.remarks,figcaption,thead{color:var(--dim)}
figure{margin:1rem 0}svg{width:100%;height:auto}svg text{fill:var(--dim)}.narrow{display:none}
figcaption{display:flex;flex-wrap:wrap;gap:0 1rem}.key{display:inline-block;width:1.2em;height:.25em;margin-right:.4em;vertical-align:middle}
tbody th{min-width:8rem}td span{text-align:right}h1,h2,li,p,tbody th{overflow-wrap:anywhere}ul{padding-left:1.2rem}
@media (max-width:56rem){.wide{display:none}.narrow{display:block}.narrow svg{max-width:32rem}
thead{display:none}tr,tbody th,td{display:block;text-align:left}tbody th{border:0;padding:.6rem 0 0;font-size:1.1rem}
td{display:flex;justify-content:space-between;gap:1rem;border:0;padding:0}td::before{content:attr(data-head);color:var(--dim)}
td:last-child{padding-bottom:.6rem;border-bottom:1px solid var(--line)}}";

pub(crate) fn page(report: &Report) -> Result<String, WriteError> {
    // This policy keeps the page from fetching or running anything, even if a bug here lets markup through.
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>etcd capacity review</title>\
         <style>{STYLE}</style></head><body><main>\n<h1>etcd capacity review</h1>\n\
         <p class=\"summary\">{}</p>\n<p class=\"about\">{}</p>\n<table><thead><tr>",
        escaped(&words::summary(report)),
        escaped(&words::introduction(report))
    );
    for head in words::HEADS {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(head));
    }
    page.push_str("</tr></thead><tbody>\n");
    for review in &report.clusters {
        page.push_str("<tr>");
        for (index, (head, cell)) in words::HEADS.iter().zip(words::row(review)).enumerate() {
            let _ = match index {
                0 => write!(page, "<th scope=\"row\">{}</th>", escaped(&review.cluster)),
                _ => {
                    write!(page, "<td data-head=\"{}\"><span>{}</span></td>", escaped(head), unbroken(&escaped(&cell)))
                }
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
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
    page.push_str("</ul>\n<figure>");
    for (class, layout) in [("wide", Layout::Wide), ("narrow", Layout::Narrow)] {
        let svg = named(&chart::sizes(review, report.frame, layout)?, &review.cluster);
        let _ = write!(page, "<div class=\"{class}\">{svg}</div>");
    }
    page.push_str("<figcaption>");
    let mut key = |colour: &str, text: &str| {
        let _ = write!(page, "<span><span class=\"key\" style=\"background:{colour}\"></span>{text}</span>");
    };
    for (name, colour) in chart::KEYS {
        key(colour, name);
    }
    if let Some(arrival) = chart::arrival(review, report.frame) {
        let (date, days) = (words::date(arrival.at), arrival.days);
        key(chart::FORECAST, &format!("forecast: quota on {date} (in {days:.1} days)"));
    }
    page.push_str("</figcaption></figure>\n<ul class=\"remarks\">");
    for remark in words::remarks(review) {
        let _ = write!(page, "<li>{}</li>", escaped(&remark));
    }
    page.push_str("</ul>\n");
    Ok(())
}

/// The chart with an accessible name, and a size that follows the window's; the figures are in the table.
fn named(svg: &str, cluster: &str) -> String {
    let name = format!("Quota, file size and size in use of the fullest member of {cluster} over time");
    svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(&name)), 1)
}

/// Figures break only before a parenthesis, sentences anywhere.
fn unbroken(cell: &str) -> String {
    if cell.contains([':', ';']) {
        return cell.to_owned();
    }
    cell.replace(' ', "\u{a0}").replace("\u{a0}(", " (")
}

/// Cluster and member names come from labels, so they may contain markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
