use std::{fs, path::Path, time::Duration};

use testkit::{
    Identity, Pki,
    rcgen::{ExtendedKeyUsagePurpose, date_time_ymd},
};

use super::*;

fn pem(path: &Path) -> Vec<CertificateDer<'static>> {
    certificates(&fs::read(path).unwrap()).unwrap()
}

/// The error of a client with this CA file for the certificate of a server with this name.
fn judged(ca: &Path, shown: &Identity, name: &str) -> Result<(), String> {
    let shown = pem(&shown.cert);
    let name = ServerName::try_from(name).unwrap();
    let verifier = Authorities::strict(pem(ca)).unwrap().verifier().unwrap();
    let verified = verifier.verify_server_cert(&shown[0], &[], &name, &[], UnixTime::now());
    verified.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_certificate_that_is_its_own_authority_is_taken_if_it_is_in_the_file_and_else_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let own = Pki::self_signed(dir, "own", |_| {}).unwrap();
    assert_eq!(judged(&own.cert, &own, "localhost"), Ok(()));
    assert_eq!(judged(&own.cert, &own, "127.0.0.1"), Ok(()));
    let elsewhere = judged(&own.cert, &own, "elsewhere.test").unwrap_err();
    assert!(elsewhere.contains("not valid for name"), "{elsewhere}");

    // The same names, but another key.
    let other = Pki::self_signed(dir, "other", |_| {}).unwrap();
    let refused = judged(&own.cert, &other, "localhost").unwrap_err();
    assert!(refused.contains("only if this very certificate is in the CA file"), "{refused}");

    let then = |year| date_time_ymd(year, 1, 1);
    let old = Pki::self_signed(dir, "old", |params| params.not_after = then(2000)).unwrap();
    let refused = judged(&old.cert, &old, "localhost").unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    let early = Pki::self_signed(dir, "early", |params| params.not_before = then(2999)).unwrap();
    let refused = judged(&early.cert, &early, "localhost").unwrap_err();
    assert!(refused.contains("not valid yet"), "{refused}");
    let clients = [ExtendedKeyUsagePurpose::ClientAuth];
    let client = Pki::self_signed(dir, "client", |params| params.extended_key_usages = clients.to_vec()).unwrap();
    assert!(judged(&client.cert, &client, "localhost").is_err(), "it is a client's");
}

#[test]
fn what_an_authority_signed_is_judged_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, other) = (Pki::create(&dir.path().join("one")).unwrap(), Pki::create(&dir.path().join("two")).unwrap());
    assert_eq!(judged(pki.ca(), pki.server(), "localhost"), Ok(()));
    assert!(judged(pki.ca(), other.server(), "localhost").is_err());
    assert!(judged(pki.ca(), pki.server(), "elsewhere.test").unwrap_err().contains("not valid for name"));
    // A server's certificate that is in the file itself, as some pin it.
    assert_eq!(judged(&pki.server().cert, pki.server(), "localhost"), Ok(()));
    assert!(judged(&pki.server().cert, other.server(), "localhost").is_err());
}

#[test]
fn a_pinned_certificate_still_has_to_be_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let own = Pki::self_signed(dir.path(), "own", |_| {}).unwrap();
    let pinned = Pinned(pem(&own.cert));
    let at = |year: u64| UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952));
    let judge = |now| pinned.judge(&pem(&own.cert)[0], Usage::Server, now).unwrap();
    assert_eq!(judge(at(2026)), Ok(()));
    assert!(judge(at(1971)).unwrap_err().to_string().contains("not valid yet"));
    assert!(judge(at(5000)).unwrap_err().to_string().contains("expired"));
}
