//! What the tests start from: a browser, a folder for defragd, and checks of a page in several modes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use testkit::{Browser, Home, Tools};

pub(crate) const MINUTE: Duration = Duration::from_mins(1);

pub(crate) async fn browser() -> Option<Browser> {
    Browser::start(&Tools::find().unwrap(), 1280).await.unwrap()
}

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_defragd"))
}

pub(crate) fn home() -> Home {
    Home::new(binary()).unwrap()
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser").join(format!("{name}.png"))
}

/// Light and dark, on a desk and on phones: takes pictures, and holds the page to what must be true of any.
pub(crate) async fn inspect(browser: &Browser, name: &str) {
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await.unwrap();
        for width in [1280, 390, 320] {
            browser.width(width).await.unwrap();
            browser.picture(&picture(&format!("{name}-{scheme}-{width}"))).await.unwrap();
            assert_eq!(browser.overflow().await.unwrap(), 0, "{name} is wider than a window of {width} pixels");
            let barriers = browser.barriers().await.unwrap();
            assert!(barriers.is_empty(), "{name}, {scheme}, {width}: {barriers:#?}");
        }
    }
    browser.scheme("light").await.unwrap();
    browser.width(1280).await.unwrap();
}

/// What the browser complained of, but for answers that a test provoked: those say their status.
pub(crate) async fn assert_no_complaints(browser: &Browser) {
    let complaints = browser.complaints().await.unwrap();
    let unexpected: Vec<_> =
        complaints.iter().filter(|line| !line.contains("the server responded with a status")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}
