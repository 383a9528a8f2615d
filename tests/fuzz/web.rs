//! The web configuration.

use defragd::config::{Source, web};
use serde_json::Value;

use crate::{Target, config::is_sound, repository};

const WORDS: [&str; 30] = [
    "tls_server_config",
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_ca_file",
    "client_auth_type",
    "RequireAndVerifyClientCert",
    "NoClientCert",
    "client_allowed_sans",
    "min_version",
    "TLS12",
    "TLS13",
    "max_version",
    "cipher_suites",
    "TLS_AES_128_GCM_SHA256",
    "curve_preferences",
    "X25519",
    "http_server_config",
    "http2",
    "headers",
    "X-Frame-Options",
    "deny",
    "basic_auth_users",
    "$2y$10$",
    "rate_limit",
    "interval",
    "burst",
    "1s",
];

pub(crate) fn target() -> Target {
    let read = |name: &str| std::fs::read_to_string(repository(&format!("tests/config/web/{name}.yml"))).unwrap();
    let seeds = ["good_everything", "bad_values", "bad_no_key"].map(read);
    let trees = seeds.iter().map(|text| serde_saphyr::from_str::<Value>(text).unwrap()).collect();
    let seeds = seeds.map(String::into_bytes).to_vec();
    let judge = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        is_sound(&text, web::from_source(&mut Source::from_text(text.as_ref())))
    };
    Target { name: "web", seeds, trees, words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_the_web_configuration_is_it_is_read_or_refused_in_order() {
    target().attack();
}
