//! Where Alertmanager sends each alert, according to its own `amtool`: with the plain configuration, and with what the
//! Prometheus Operator generates from the `AlertmanagerConfig` objects.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use testkit::Tools;

use super::{alerts::alerts, read, root, yaml};

const ETCDS_OWN: [&str; 4] = [
    "etcdDatabaseHighFragmentationRatio",
    "etcdDatabaseQuotaLowSpace",
    "etcdBackendQuotaLowSpace",
    "etcdExcessiveDatabaseGrowth",
];

/// The receivers of an alert with these labels.
fn receivers(config: &Path, labels: &[(&str, &str)]) -> String {
    let mut command = Command::new(Tools::find().unwrap().amtool());
    command.args(["config", "routes", "test", "--config.file"]).arg(config);
    let out = command.args(labels.iter().map(|(name, value)| format!("{name}={value}"))).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn what_defragd_can_do_something_about_goes_to_it_and_everything_goes_to_people() {
    let config = root().join("alerts/alertmanager.yml");
    for (name, rule) in alerts() {
        let remediate = rule["labels"]["defragd"] == "remediate";
        let mut labels = vec![("alertname", name.as_str()), ("etcd_cluster", "prod-a")];
        labels.extend(remediate.then_some(("defragd", "remediate")));
        assert_eq!(receivers(&config, &labels), if remediate { "defragd,people" } else { "people" }, "{name}");
    }
    for name in ETCDS_OWN {
        assert_eq!(receivers(&config, &[("alertname", name), ("job", "kube-etcd")]), "defragd,people", "{name}");
    }
    for name in ["etcdMembersDown", "KubePodCrashLooping"] {
        assert_eq!(receivers(&config, &[("alertname", name), ("job", "kube-etcd")]), "people", "{name}");
    }
}

/// What the operator makes of an `AlertmanagerConfig`: a route below the global one that always continues to the next,
/// with a matcher on the object's namespace unless the strategy leaves it out, and receivers named after the object.
fn rendered(object: &Value, namespace_matcher: bool) -> Value {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let spec = &object["spec"];
    let full_name = |receiver: &Value| format!("{namespace}/{name}/{}", text(receiver));
    let mut matchers: Vec<_> = spec["route"]["matchers"].as_array().unwrap().iter().map(matcher).collect();
    if namespace_matcher {
        matchers.push(format!("namespace={namespace:?}"));
    }
    let receiver = |receiver: &Value| {
        let hooks = receiver["webhookConfigs"].as_array().unwrap();
        let hooks = hooks.iter().map(|hook| json!({"url": hook["url"], "send_resolved": hook["sendResolved"]}));
        json!({"name": full_name(&receiver["name"]), "webhook_configs": hooks.collect::<Vec<_>>()})
    };
    let mut receivers: Vec<_> = spec["receivers"].as_array().unwrap().iter().map(receiver).collect();
    receivers.push(json!({"name": "people"}));
    json!({
        "route": {
            "receiver": "people",
            "routes": [
                {
                    "receiver": full_name(&spec["route"]["receiver"]),
                    "matchers": matchers,
                    "group_by": spec["route"]["groupBy"],
                    "group_wait": spec["route"]["groupWait"],
                    "group_interval": spec["route"]["groupInterval"],
                    "repeat_interval": spec["route"]["repeatInterval"],
                    "continue": true,
                },
                {"receiver": "people"},
            ],
        },
        "receivers": receivers,
    })
}

fn matcher(matcher: &Value) -> String {
    let part = |name: &str| matcher[name].as_str().unwrap();
    format!("{}{}{:?}", part("name"), part("matchType"), part("value"))
}

#[test]
fn the_operators_namespace_matcher_is_a_trap_and_each_way_out_of_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let object = yaml("alerts/alertmanagerconfig.yaml");
    let config = |name: &str, namespace_matcher: bool| {
        let path = dir.path().join(name);
        std::fs::write(&path, rendered(&object, namespace_matcher).to_string()).unwrap(); // JSON is YAML
        path
    };
    let (stock, trusting) = (config("stock.yml", true), config("trusting.yml", false));
    let to_defragd = "monitoring/defragd/defragd,people";

    let asks = [("alertname", "EtcdFragmentationHigh"), ("defragd", "remediate"), ("etcd_cluster", "prod-a")];
    assert_eq!(receivers(&stock, &asks), "people", "the trap: there would be nothing to explain");
    assert_eq!(receivers(&trusting, &asks), to_defragd, "ways 1 and 2");
    assert_eq!(receivers(&trusting, &[("alertname", "EtcdCorrupt"), ("etcd_cluster", "prod-a")]), "people");

    // Way 3, with the command of the comment in that file.
    let text = read("alerts/alertmanagerconfig.yaml");
    let command = text.lines().find_map(|line| line.trim_start_matches("# ").trim().strip_prefix("sed ")).unwrap();
    let sed = Command::new("sh").current_dir(root().join("alerts")).args(["-c", &format!("sed {command}")]).output();
    let labelled: Value = serde_saphyr::from_str(&String::from_utf8(sed.unwrap().stdout).unwrap()).unwrap();
    let mut sets = Vec::new();
    super::values_of(&labelled, "labels", &mut sets);
    let asking: Vec<_> = sets.into_iter().filter(|labels| labels["defragd"] == "remediate").collect();
    assert_eq!(asking.len(), 3, "{asking:?}");
    for labels in asking {
        let labels: Vec<_> =
            labels.as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap())).collect();
        assert_eq!(receivers(&stock, &labels), to_defragd, "{labels:?}");
    }
}

#[test]
fn etcds_own_alerts_pass_the_operators_namespace_matcher() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stock.yml");
    let object = yaml("alerts/alertmanagerconfig-etcd-mixin.yaml");
    std::fs::write(&path, rendered(&object, true).to_string()).unwrap();
    for name in ETCDS_OWN {
        let labels = [("alertname", name), ("namespace", "kube-system"), ("job", "kube-etcd")];
        assert_eq!(receivers(&path, &labels), "kube-system/defragd-etcd-mixin/defragd,people", "{name}");
    }
    let other = [("alertname", "etcdMembersDown"), ("namespace", "kube-system"), ("job", "kube-etcd")];
    assert_eq!(receivers(&path, &other), "people");
}

#[test]
fn the_three_configurations_agree_on_url_path_grouping_and_patience() {
    let plain = yaml("alerts/alertmanager.yml");
    let hook = &plain["receivers"][0]["webhook_configs"][0];
    for (number, file) in ["alertmanagerconfig.yaml", "alertmanagerconfig-etcd-mixin.yaml"].into_iter().enumerate() {
        let object = yaml(&format!("alerts/{file}"));
        let (theirs, ours) = (&object["spec"]["route"], &plain["route"]["routes"][number]);
        for (there, here) in [
            ("groupBy", "group_by"),
            ("groupWait", "group_wait"),
            ("groupInterval", "group_interval"),
            ("repeatInterval", "repeat_interval"),
        ] {
            assert_eq!(theirs[there], ours[here], "{file}: {there}");
        }
        let matchers: Vec<_> = theirs["matchers"].as_array().unwrap().iter().map(matcher).collect();
        assert_eq!(json!(matchers), ours["matchers"], "{file}");
        let there = &object["spec"]["receivers"][0]["webhookConfigs"][0];
        assert_eq!(there["sendResolved"], hook["send_resolved"], "{file}");
        let path = |url: &Value| url.as_str().unwrap().splitn(4, '/').nth(3).unwrap().to_owned();
        assert_eq!(path(&there["url"]), path(&hook["url"]), "{file}");
        assert_eq!(there["httpConfig"]["authorization"]["type"], hook["http_config"]["authorization"]["type"]);
    }
}
