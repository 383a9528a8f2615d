//! Text from others, and URLs, made safe to display.

use url::Url;

/// Enough for the first sentence of an error page.
const MAX_EXCERPT_CHARS: usize = 200;
/// Errors wrap errors, and the last one has the cause.
const MAX_DETAIL_CHARS: usize = 400;

/// One printable line of at most 200 characters. Secrets must be masked before: a truncated one would stay.
pub(in crate::adapters) fn excerpt(text: &str) -> String {
    line(text, MAX_EXCERPT_CHARS)
}

/// The same for text that is longer than the beginning of a body.
pub(in crate::adapters) fn detail(text: &str) -> String {
    line(text, MAX_DETAIL_CHARS)
}

fn line(text: &str, max_chars: usize) -> String {
    let shown: String = text.chars().map(|c| if c.is_whitespace() || is_invisible(c) { ' ' } else { c }).collect();
    let words: Vec<_> = shown.split(' ').filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(max_chars) {
        None => line,
        // One less, for the mark.
        Some(_) => line.chars().take(max_chars - 1).chain(['…']).collect(),
    }
}

/// Control characters, and those that reverse or hide text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The URL's scheme, host and port: everything else in it may be a secret.
pub(in crate::adapters) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Where a redirect leads, without user information, query and fragment. It may repeat what was requested.
pub(in crate::adapters) fn redirect_target(url: &Url) -> String {
    format!("{}{}", shown(url), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_printable_line_of_bounded_length() {
        assert_eq!(excerpt("  a\r\n\tb \u{202e}c\u{0}\u{1b}[31md  "), "a b c [31md");
        let long = excerpt(&"ü".repeat(1_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (200, true));
        assert_eq!(excerpt(&"x".repeat(200)).len(), 200);
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:pw@host:1/path?token=x#y").expect("valid");
        assert_eq!(shown(&url), "https://host:1");
        assert_eq!(redirect_target(&url), "https://host:1/path");
    }
}
