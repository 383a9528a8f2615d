//! The good files in `tests/config/web`, with what they mean. The bad ones are pinned in `tests/program/check_config.rs`.

use std::path::Path;

use super::*;

fn read(name: &str) -> Result<WebConfig, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/web");
    from_file(&dir.join(format!("{name}.yml")))
        .map_err(|error| error.to_string().replace(&format!("{}/", dir.display()), ""))
}

#[test]
fn an_empty_file_is_plain_http_for_everybody() {
    let config = read("good_empty").expect("valid");
    assert!(config.tls.is_none() && config.http2 && config.users.is_empty() && config.rate_limit.is_none());
}

#[test]
fn every_key_means_what_exporter_toolkit_says() {
    let config = read("good_everything").expect("valid");
    let tls = config.tls.expect("TLS");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/web");
    assert_eq!(tls.cert, Pem::File(here.join("server.crt")), "relative to the file");
    assert_eq!(tls.key, Pem::File("/etc/defragd/server.key".into()));
    assert_eq!(tls.client_ca, Some(Pem::File(here.join("ca.crt"))));
    assert_eq!((tls.client_auth, tls.client_allowed_sans.len()), (ClientAuth::RequireAndVerify, 4));
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls12, TlsVersion::Tls13));
    assert_eq!((tls.cipher_suites.len(), tls.curve_preferences.len()), (2, 2));
    assert!(!tls.prefer_server_cipher_suites && !config.http2);
    assert_eq!(config.headers.keys().collect::<Vec<_>>(), ["Strict-Transport-Security", "X-Frame-Options"]);
    assert_eq!(config.users.len(), 1);
    assert_eq!(config.rate_limit, Some(RateLimit { interval: Duration::from_millis(100), burst: 20 }));
}

#[test]
fn a_bcrypt_hash_may_cost_seconds_but_not_minutes() {
    let costs = |cost: u32| {
        let hash = format!("$2y${cost:02}$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze");
        let mut problems = Problems::default();
        users([("ann".to_owned(), hash)].into(), &mut problems);
        problems.0.is_empty()
    };
    assert_eq!([3, 4, 16, 17, 18, 19].map(costs), [false, true, true, true, true, false]);
}

#[test]
fn no_secret_is_shown_when_a_configuration_is_printed() {
    let mut config = read("good_everything").expect("valid");
    config.tls.as_mut().expect("TLS").key = Pem::Inline("s3cret".to_owned());
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("$2y$"), "{shown}");
    assert!(!read("bad_key_quoted").expect_err("bad").contains("not-for-the-log"));
}
