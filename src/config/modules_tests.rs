use super::*;
use crate::config::Settings;

fn read(text: &str) -> Result<Settings, String> {
    Settings::from_text(text).map_err(|error| error.to_string())
}

fn allowed(keys: &str) -> ModuleSettings {
    let settings = read(&format!("modules: {{m: {{{keys}}}}}")).expect("valid");
    settings.modules["m"].clone()
}

#[test]
fn only_what_a_module_lists_is_a_target_of_it() {
    let allowed = allowed(
        "allowed_targets: [10.1.0.0/16, 192.0.2.7, 'fd00::/8', etcd-1.example, '*.Etcd.example'], allowed_ports: [2379, 443]",
    );
    for (text, url) in [
        ("10.1.255.255:2379", "https://10.1.255.255:2379"),
        ("https://10.1.0.1:2379/", "https://10.1.0.1:2379"),
        ("192.0.2.7:443", "https://192.0.2.7:443"),
        ("https://192.0.2.7:443", "https://192.0.2.7:443"),
        ("[fd00:1::2]:2379", "https://[fd00:1::2]:2379"),
        ("[::ffff:10.1.2.3]:2379", "https://[::ffff:a01:203]:2379"),
        ("ETCD-1.example.:2379", "https://etcd-1.example.:2379"),
        ("a.b.etcd.example:2379", "https://a.b.etcd.example:2379"),
        // Spellings of an address that resolvers accept.
        ("0x0a010001:2379", "https://10.1.0.1:2379"),
        ("167837697:2379", "https://10.1.0.1:2379"),
    ] {
        let target = allowed.target(text).unwrap_or_else(|denied| panic!("{text}: {denied:?}"));
        assert_eq!(target.url, url, "{text}");
        assert!(url.ends_with(&format!("//{}", target.authority)));
    }
    for (text, says) in [
        ("10.2.0.1:2379", "allowed_targets"),
        ("10.1.0.1:22", "allowed_ports: 2379, 443"),
        ("169.254.169.254:2379", "allowed_targets"),
        ("127.0.0.1:2379", "allowed_targets"),
        ("[::1]:2379", "allowed_targets"),
        ("[::ffff:127.0.0.1]:2379", "allowed_targets"),
        ("2130706433:2379", "allowed_targets"),
        ("etcd.example:2379", "allowed_targets"),
        ("evil-etcd.example:2379", "allowed_targets"),
        ("etcd-1.example.evil.example:2379", "allowed_targets"),
    ] {
        let denied = allowed.target(text).expect_err(text);
        assert!(matches!(&denied, Denied::Outside(why) if why.contains(says)), "{text}: {denied:?}");
    }
    for (text, says) in [
        ("", "not an address"),
        ("10.1.0.1", "no port"),
        ("10.1.0.1:", "no port"),
        ("[fd00::1]", "no port"),
        ("etcd-1.example:0", "no port"),
        ("https://etcd-1.example", "no port"),
        ("10.1.0.1:2379/v3", "more than a host and a port"),
        ("10.1.0.1:2379?x=y", "more than a host and a port"),
        ("10.1.0.1:2379#x", "more than a host and a port"),
        ("root:pw@10.1.0.1:2379", "contains a user"),
        ("@10.1.0.1:2379", "contains a user"),
        ("http://10.1.0.1:2379", "its scheme is http, but the module's is https"),
        ("file:///etc/passwd", "its scheme is file"),
        ("unix://etcd-1.example:2379", "its scheme is unix"),
        ("10.1.0.1:99999", "not an address"),
        ("a b:2379", "not an address"),
    ] {
        let denied = allowed.target(text).expect_err(text);
        assert!(matches!(&denied, Denied::NotATarget(why) if why.contains(says)), "{text}: {denied:?}");
        assert!(!format!("{denied:?}").contains("pw"), "{denied:?}");
    }
}

#[test]
fn everything_can_be_allowed_but_only_by_saying_so() {
    let all = allowed("scheme: http, allowed_targets: [0.0.0.0/0, '::/0']");
    assert_eq!(all.target("203.0.113.9:2379").expect("allowed").url, "http://203.0.113.9:2379");
    assert!(all.target("[2001:db8::1]:2379").is_ok());
    assert!(all.target("localhost:2379").is_err(), "a name is no address");
    assert!(all.permits_url("http://10.0.0.1:2379").is_ok());
    assert!(all.permits_url("https://10.0.0.1:2379").expect_err("TLS").to_string().contains("scheme"));
}

#[test]
fn what_is_wrong_with_a_module_is_said_with_its_key() {
    let text = "
modules:
  a: {}
  'b b': {allowed_targets: ['*'], tls: {cert_file: /c.crt}}
  c: {scheme: http, tls: {ca_file: /ca.crt}, auth: {username: '', password_file: /pw}, allowed_targets: [10.0.0.0/33, 10.0.0/8, 'x:2379', 'https://x'], allowed_ports: []}
";
    let error = read(text).expect_err("invalid");
    for expected in [
        "modules.a.allowed_targets: needs at least one",
        "modules.b b: a module's name must be",
        "modules.b b.allowed_targets[0]: \"*\" is not a host",
        "modules.b b.tls.key_file: is missing",
        "modules.c.tls: has no effect with scheme: http",
        "modules.c.auth.username: must not be empty",
        "modules.c.allowed_targets[0]: \"10.0.0.0/33\" needs a number of bits from 0 to 32",
        "modules.c.allowed_targets[1]: \"10.0.0/8\" is not a network",
        "modules.c.allowed_targets[2]: \"x:2379\" is not a host",
        "modules.c.allowed_targets[3]: \"https://x\" is not a network",
        "modules.c.allowed_ports: needs ports",
    ] {
        assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
    }
    for (text, says) in [
        ("modules: {m: {allowed_targets: [a], password: x}}", "password"),
        ("modules: {m: {allowed_targets: [a], scheme: ftp}}", "ftp"),
        ("modules: {}", "clusters: needs at least one cluster"),
        ("clusters: []", "clusters: needs at least one cluster"),
    ] {
        assert!(read(text).expect_err(text).contains(says), "{text}");
    }
}
