//! What `--help` shows below the flags: examples and exit codes. `tests/docs` parses each example.

/// From lines of both.
macro_rules! help {
    ([$($example:literal),+ $(,)?]) => {
        help!([$($example),+], ["0  done", "1  failed", "2  wrong usage, or a file that cannot be used"])
    };
    ([$($example:literal),+ $(,)?], [$($code:literal),+ $(,)?]) => {
        concat!("Examples:", $("\n  ", $example,)+ "\n\nExit codes:", $("\n  ", $code,)+)
    };
}

pub(super) const DEFRAGD: &str = help!(
    [
        "defragd status --endpoints 10.0.0.1:2379",
        "defragd plan --config config.yaml",
        "defragd run --config config.yaml --cluster prod-a --mode enforce",
        "defragd serve --config config.yaml --web.bearer-token-file webhook.token",
    ],
    [
        "0  done, or nothing to do",
        "1  failed",
        "2  wrong usage or configuration",
        "3  refused, because it would not be safe or the mode is observe",
    ]
);

pub(super) const SERVE: &str = help!(
    [
        "defragd serve --config /etc/defragd/config.yaml --web.bearer-token-file /etc/defragd/webhook.token",
        "defragd serve --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key",
        "defragd serve --config config.yaml --exporter-only",
    ],
    ["0  stopped by SIGTERM or SIGINT", "1  failed", "2  wrong usage or configuration: starting again does not help",]
);

pub(super) const STATUS: &str = help!(
    [
        "defragd status --endpoints 10.0.0.1:2379",
        "defragd status --config config.yaml --cluster prod-a -o wide",
        "defragd status --config config.yaml -o json",
        "defragd status --server https://defragd.example",
    ],
    ["0  every member answered", "1  a member or a cluster did not", "2  wrong usage or configuration"]
);

pub(super) const PLAN: &str = help!(
    [
        "defragd plan --config config.yaml",
        "defragd plan --config config.yaml --cluster prod-a --as-manual",
        "defragd plan --endpoints 10.0.0.1:2379 --min-fragmentation-ratio 0.3 --min-reclaimable 50MiB",
    ],
    [
        "0  nothing holds a run back, whether or not a member needs it",
        "1  a cluster cannot be observed",
        "2  wrong usage or configuration",
        "3  something holds a run back now (mode observe, too), whether or not a member needs it",
    ]
);

pub(super) const GATES: &str = help!(
    [
        "defragd gates --config config.yaml",
        "defragd gates --config config.yaml --cluster prod-a --moment after -o json"
    ],
    ["0  all gates passed", "1  failed", "2  wrong usage or configuration", "3  a gate failed, and would stop a run"]
);

pub(super) const RUN: &str = help!(
    [
        "defragd run --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key",
        "defragd run --config config.yaml --cluster prod-a --mode enforce",
        "defragd run --cluster prod-a --server https://defragd.example --token-file admin.token",
        "defragd run --cluster prod-a --member etcd-2",
    ],
    [
        "0  done, or nothing to do",
        "1  failed, or stopped following a run of a server",
        "2  wrong usage or configuration",
        "3  refused, because it would not be safe or the mode is observe; or held on a server for longer than --wait",
    ]
);

pub(super) const RUNS: &str = help!(
    ["defragd runs", "defragd runs --limit 5 -o json"],
    ["0  done", "1  failed: there is no journal", "2  wrong usage"]
);

pub(super) const RUNS_SHOW: &str = help!(
    ["defragd runs show 17", "defragd runs show 17 -o json"],
    ["0  done", "1  failed: there is no such run, or no journal", "2  wrong usage"]
);

pub(super) const REPORT: &str = help!([
    "defragd report --prometheus.url http://prometheus.example:9090",
    "defragd report --prometheus.url http://prometheus.example:9090 --range 90d -o html --output-file report.html",
]);

pub(super) const EXPLAIN: &str =
    help!(["defragd explain cooldown", "defragd explain"], ["0  done", "2  there is no such reason"]);

pub(super) const APPROVE: &str = help!(
    ["defragd approve 17", "defragd approve 17 --yes --server https://defragd.example --token-file admin.token"],
    [
        "0  approved",
        "1  failed: there is no such run, it does not wait for approval, or there is no terminal to ask on",
        "2  wrong usage, or a file that cannot be used",
        "3  you answered no"
    ]
);

pub(super) const REJECT: &str = help!(
    ["defragd reject 17 --reason release-tonight"],
    [
        "0  done",
        "1  failed: there is no such run, or it does not wait for approval",
        "2  wrong usage, or a file that cannot be used"
    ]
);

pub(super) const PAUSE: &str = help!(["defragd pause --cluster prod-a --reason maintenance --for 2h"]);

pub(super) const RESUME: &str = help!(["defragd resume --cluster prod-a --reason fixed"]);

pub(super) const CANCEL: &str = help!(["defragd cancel --cluster prod-a --reason unwanted"]);

pub(super) const CHECK_CONFIG: &str = help!(
    [
        "defragd check-config config.yaml",
        "defragd check-config --config config.yaml --web.config.file web.yml -o json",
        "defragd check-config --schema",
    ],
    ["0  valid", "2  wrong usage, or problems were found"]
);

pub(super) const HEALTH: &str = help!(
    ["defragd health", "defragd health --ready --url https://127.0.0.1:9379 --server-ca-file ca.crt"],
    ["0  healthy, or ready", "1  not, or another program answers", "2  wrong usage, or a file that cannot be used"]
);

pub(super) const COMPLETIONS: &str = help!(["defragd completions bash"]);

pub(super) const MAN: &str = help!(["defragd man", "defragd man --dir man1"]);
