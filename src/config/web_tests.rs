//! The files in `tests/config/web`: the good ones with what they mean, the bad ones with their whole message.

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
fn every_mistake_is_answered_with_what_to_write() {
    let expected: [(&str, &[&str]); 8] = [
        (
            "bad_unknown_key",
            &[
                "bad_unknown_key.yml: error: line 3 column 3: unknown field `key_fil`, expected one of cert, key, client_ca, cert_file, key_file, client_ca_file, client_auth_type, client_allowed_sans, min_version, max_version, cipher_suites, prefer_server_cipher_suites, curve_preferences",
            ],
        ),
        (
            "bad_unknown_section",
            &[
                "bad_unknown_section.yml: error: line 1 column 1: unknown field `tls_config`, expected one of tls_server_config, http_server_config, basic_auth_users, rate_limit",
            ],
        ),
        ("bad_not_yaml", &["bad_not_yaml.yml: error: line 1 column 19: expected mapping start"]),
        ("bad_key_quoted", &["bad_key_quoted.yml: error: line 2 column 8: expected string scalar"]),
        (
            "bad_values",
            &[
                "tls_server_config.client_auth_type: \"RequireClientCerts\" is none of NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert",
                "tls_server_config.min_version: \"TLS10\" cannot be had: write TLS12 or TLS13",
                "tls_server_config.max_version: \"TLS11\" cannot be had: write TLS12 or TLS13",
                "tls_server_config.cipher_suites[1]: \"TLS_RSA_WITH_AES_128_CBC_SHA\" cannot be had: there are TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "tls_server_config.curve_preferences[0]: \"CurveP521\" cannot be had: there are CurveP256, CurveP384, X25519, X25519MLKEM768",
                "tls_server_config.cert: exclude each other: cert and cert_file",
                "tls_server_config.client_allowed_sans: is empty: nobody could come in; leave it out to let everybody in",
                "tls_server_config.key_file: is missing (or key, with the text itself)",
                "http_server_config.headers.Content-Security-Policy: must be one line of plain characters",
                "http_server_config.headers.Server: cannot be set: only Content-Security-Policy, Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection",
                "http_server_config.headers.X-Frame-Options: \"allow\" is not allowed: write deny or sameorigin",
                "basic_auth_users.: a user's name must not be empty and must not have a colon",
                "basic_auth_users.alice: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'",
                "basic_auth_users.bob: has cost 31, which must be from 4 to 16",
                "rate_limit.interval: \"5\" is not a time like 1s or 100ms; 0 is no limit",
            ],
        ),
        (
            "bad_no_key",
            &[
                "tls_server_config.max_version: is older than min_version",
                "tls_server_config.cert_file: is missing (or cert, with the text itself)",
                "tls_server_config.key_file: is missing (or key, with the text itself)",
                "rate_limit.burst: must be at least 1, or nobody could come in",
            ],
        ),
        (
            "bad_no_effect",
            &[
                "tls_server_config.client_ca: has no effect: client_auth_type must be VerifyClientCertIfGiven or RequireAndVerifyClientCert",
            ],
        ),
        (
            "bad_sans_of_nobody",
            &[
                "tls_server_config.client_allowed_sans: needs client_auth_type RequireAndVerifyClientCert or RequireAnyClientCert",
            ],
        ),
    ];
    for (name, lines) in expected {
        assert_eq!(read(name).expect_err(name).lines().collect::<Vec<_>>(), lines, "{name}");
    }
    // No file lies there without being looked at.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/web");
    assert_eq!(std::fs::read_dir(dir).expect("a folder").count(), expected.len() + 2);
}

#[test]
fn no_secret_is_shown_when_a_configuration_is_printed() {
    let mut config = read("good_everything").expect("valid");
    config.tls.as_mut().expect("TLS").key = Pem::Inline("s3cret".to_owned());
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("$2y$"), "{shown}");
    assert!(!read("bad_key_quoted").expect_err("bad").contains("not-for-the-log"));
}
