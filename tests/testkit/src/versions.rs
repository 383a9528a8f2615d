//! A test for each release line of etcd.

use std::future::Future;

use crate::{EtcdVersion, Tools, skipped};

/// Writes a test for each line of etcd: `on_each_version! { a_cluster_of _ works => scenario }` writes
/// `a_cluster_of_3_4_works`, `a_cluster_of_3_5_works` and so on, which call `scenario(version)`.
///
/// `[3_5 3_6]` in front limits it to these lines, and attributes before that are put on each test. Where a line is not
/// installed, its test is skipped.
#[macro_export]
macro_rules! on_each_version {
    ($(#[$attribute:meta])* $before:ident _ $($after:ident)? => $scenario:expr) => {
        $crate::on_each_version! { $(#[$attribute])* [3_4 3_5 3_6 3_7] $before _ $($after)? => $scenario }
    };
    ($(#[$attribute:meta])* [$($line:literal)+] $before:ident _ => $scenario:expr) => {
        $crate::on_each_version! { @each { $(#[$attribute])* } ($([<$before _ $line>] [<V $line>])+) $scenario }
    };
    ($(#[$attribute:meta])* [$($line:literal)+] $before:ident _ $after:ident => $scenario:expr) => {
        $crate::on_each_version! { @each { $(#[$attribute])* } ($([<$before _ $line _ $after>] [<V $line>])+) $scenario }
    };
    (@each $attributes:tt ($($name:tt $version:tt)+) $scenario:expr) => {
        $crate::pastey::paste! { $($crate::on_each_version! { @test $attributes $name $version $scenario })+ }
    };
    (@test { $($attribute:tt)* } $name:ident $version:ident $scenario:expr) => {
        #[tokio::test(flavor = "multi_thread")]
        $($attribute)*
        async fn $name() {
            $crate::on_version($crate::EtcdVersion::$version, $scenario).await;
        }
    };
}

/// Runs the scenario on that line, or skips it where that is not installed.
///
/// # Panics
/// If the other tools are not installed.
pub async fn on_version<F: Future<Output = ()>>(version: EtcdVersion, scenario: impl FnOnce(EtcdVersion) -> F) {
    if Tools::find().expect("the tools to be installed").etcd_versions().contains(&version) {
        Box::pin(scenario(version)).await;
    } else if let Some(only) = EtcdVersion::wanted() {
        skipped(format_args!("DEFRAGD_ETCD={} selects another line than {version}", only.as_str()));
    } else {
        skipped(format_args!("no etcd {version} here; tests/testkit/tools builds 3.6 and later where there is Go"));
    }
}
