use super::read;

#[test]
fn clusters_and_modules_say_where_their_metrics_are() {
    let text = "
clusters:
  - name: a
    endpoints: ['https://10.0.0.1:2379']
    metrics: {url: 'https://{host}:9978/metrics', tls: {cert_file: /c.crt, key_file: /c.key}}
    quota: 8GiB
modules:
  m: {allowed_targets: [10.0.0.0/8], metrics: {url: 'http://{host}:2381'}, quota: 2GiB}
";
    let settings = read(text).expect("valid");
    let (cluster, module) = (&settings.clusters[0], &settings.modules["m"]);
    let metrics = cluster.metrics.as_ref().expect("it is there");
    assert_eq!(metrics.url.of("https://10.0.0.1:2379", "x").as_deref(), Ok("https://10.0.0.1:9978/metrics"));
    let tls = metrics.tls.as_ref().expect("it is there");
    assert!(tls.identity().is_some() && tls.ca_file.is_none());
    assert_eq!((cluster.quota, module.quota), (Some(bytesize::ByteSize::gib(8)), Some(bytesize::ByteSize::gib(2))));
    let page = module.metrics.as_ref().expect("it is there").url.of("http://[fd00::1]:2379", "x");
    assert_eq!(page.as_deref(), Ok("http://[fd00::1]:2381/metrics"));
}

#[test]
fn what_is_wrong_with_them_is_said_where_it_is() {
    for (keys, problem) in [
        ("metrics: {url: 'http://10.0.0.1:2381/metrics'}", "clusters[0].metrics.url: is the same page for all members"),
        ("metrics: {}", "clusters[0].metrics.url: is missing"),
        ("metrics: {url: 'http://{host}:1', tls: {}}", "clusters[0].metrics.tls: has no effect"),
        ("metrics: {url: 'https://{host}:1', tls: {cert_file: /c}}", "clusters[0].metrics.tls.key_file: is missing"),
        ("quota: 8", "clusters[0].quota: is 8 bytes"),
        ("quota: lots", "clusters[0].quota: is \"lots\", but must be a size"),
    ] {
        let error = read(&format!("clusters: [{{name: a, endpoints: [x:1], {keys}}}]")).expect_err(keys);
        assert!(error.contains(problem), "{problem:?} is not in:\n{error}");
    }
}
