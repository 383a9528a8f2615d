//! `metrics` and `quota`: what is needed where a client port does not serve the member's metrics.

use std::path::PathBuf;

use bytesize::ByteSize;

use super::{raw, validate, validate::Problems};
use crate::core::page::PageUrl;

/// etcd's default is 2 GiB; no quota is useful below this.
const MIN_QUOTA: ByteSize = ByteSize::mib(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// With placeholders.
    pub url: PageUrl,
    /// The authorities to trust there; the cluster's where absent.
    pub ca_file: Option<PathBuf>,
    /// The certificate and key that are shown there; none where absent, whatever the cluster has.
    pub identity_files: Option<(PathBuf, PathBuf)>,
}

pub(super) fn settings(at: &str, raw: Option<raw::Metrics>, problems: &mut Problems) -> Option<MetricsSettings> {
    let raw = raw?;
    let url = PageUrl::parse(&raw.url).map_err(|what| problems.add(format!("{at}.url"), what)).ok();
    if raw.tls.is_some() && url.as_ref().is_some_and(|url| !url.is_tls()) {
        problems
            .add(format!("{at}.tls"), "has no effect, since url begins with http://: write https://, or leave tls out");
    }
    let tls = raw.tls.unwrap_or_default();
    let identity_files = validate::identity(&format!("{at}.tls"), tls.cert_file, tls.key_file, problems);
    Some(MetricsSettings { url: url?, ca_file: tls.ca_file, identity_files })
}

pub(super) fn quota(at: &str, quota: Option<ByteSize>, problems: &mut Problems) -> Option<ByteSize> {
    if let Some(quota) = quota.filter(|quota| *quota < MIN_QUOTA) {
        let what = format!(
            "is {} bytes: write the members' --quota-backend-bytes with a unit, like 8GiB, or 2GiB where that flag is not \
             set",
            quota.0
        );
        problems.add(at, what);
    }
    quota
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, Source};

    fn read(text: &str) -> Result<Settings, String> {
        Settings::from_source(&mut Source::from_text(text), |_| ()).map_err(|error| error.to_string())
    }

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
        assert!(metrics.identity_files.is_some() && metrics.ca_file.is_none());
        assert_eq!((cluster.quota, module.quota), (Some(bytesize::ByteSize::gib(8)), Some(bytesize::ByteSize::gib(2))));
        let page = module.metrics.as_ref().expect("it is there").url.of("http://[fd00::1]:2379", "x");
        assert_eq!(page.as_deref(), Ok("http://[fd00::1]:2381/metrics"));
    }

    #[test]
    fn what_is_wrong_with_them_is_said_where_it_is() {
        for (keys, problem) in [
            (
                "metrics: {url: 'http://10.0.0.1:2381/metrics'}",
                "clusters[0].metrics.url: names one page for all members",
            ),
            ("metrics: {}", "clusters[0].metrics.url: is missing"),
            ("metrics: {url: 'http://{host}:1', tls: {}}", "clusters[0].metrics.tls: has no effect"),
            (
                "metrics: {url: 'https://{host}:1', tls: {cert_file: /c}}",
                "clusters[0].metrics.tls.key_file: is missing",
            ),
            ("quota: 8", "clusters[0].quota: is 8 bytes"),
            ("quota: lots", "clusters[0].quota: is \"lots\", and must be a size"),
        ] {
            let error = read(&format!("clusters: [{{name: a, endpoints: [x:1], {keys}}}]")).expect_err(keys);
            assert!(error.contains(problem), "{problem:?} is not in:\n{error}");
        }
    }
}
