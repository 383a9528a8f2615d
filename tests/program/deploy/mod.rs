//! `deploy/` and the Dockerfile match the program: flags, port, paths, times, rules. This reads deploy/kustomize, and the
//! manifests in the folder `DEFRAGD_RENDERED`, where `make check-deploy` renders the chart; it starts the program with the
//! pods' own arguments. `make check-deploy` checks whether Kubernetes accepts the manifests.

mod packages;
mod pods;
mod values;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::rig::{binary, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// A file of manifests, as it is applied.
struct Rendered {
    path: PathBuf,
    objects: Vec<Value>,
}

impl Rendered {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let documents = text.split("\n---").filter(|part| part.lines().any(|line| !line.starts_with(['#', '-'])));
        let objects = documents.map(|part| yaml(part, &path)).filter(|object| !object.is_null()).collect();
        Self { path, objects }
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// What makes the pods: a Deployment, or a `StatefulSet` of several replicas.
    fn workload(&self) -> Option<&Value> {
        self.of_kind("Deployment").chain(self.of_kind("StatefulSet")).next()
    }

    fn pod(&self) -> Option<&Value> {
        self.workload().map(|workload| &workload["spec"]["template"]["spec"])
    }
}

fn yaml(text: &str, path: &Path) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The base that is checked in, and what was rendered before.
fn rendered() -> Vec<Rendered> {
    let mut paths = vec![root().join("deploy/kustomize/base/defragd.yaml")];
    if let Some(dir) = std::env::var_os("DEFRAGD_RENDERED") {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let before = paths.len();
        paths.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")));
        assert!(paths.len() > before + 5, "little was rendered: {paths:?}");
    }
    let all: Vec<_> = paths.into_iter().map(Rendered::read).collect();
    assert!(all.iter().all(|file| file.pod().is_some()), "each has a Deployment or a StatefulSet");
    all
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn arguments(pod: &Value) -> Vec<String> {
    array(&pod["containers"][0]["args"]).iter().map(|argument| text(argument).to_owned()).collect()
}

/// Where a pod that is a shard has its ordinal from.
fn shard(pod: &Value) -> Option<&Value> {
    let env = pod["containers"][0]["env"].as_array()?;
    env.iter().find(|variable| variable["name"] == "DEFRAGD_SHARD").map(|variable| &variable["valueFrom"])
}

/// The value of `--flag=value`.
fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

fn help(command: &str) -> String {
    let output = Command::new(binary()).args([command, "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Words like `--data-dir`.
fn flags(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        .filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---"))
        .map(|word| word.trim_end_matches('.'))
        .collect()
}

#[test]
fn every_flag_of_a_service_is_one_of_the_program() {
    let help = help("serve");
    let known = flags(&help);
    let unit = read("deploy/systemd/defragd.service");
    let unit_flags =
        unit.lines().filter(|line| line.starts_with("ExecStart=") || line.contains("--web.")).collect::<String>();
    let dockerfile = read("Dockerfile");
    let run = dockerfile.lines().skip_while(|line| !line.contains(" serve ")).take(2).collect::<String>();
    let mut named: Vec<_> = flags(&unit_flags).into_iter().chain(flags(&run)).map(str::to_owned).collect();
    assert!(named.len() >= 8, "{named:?}");
    for file in rendered() {
        let arguments = arguments(file.pod().unwrap());
        assert_eq!(arguments[0], "serve");
        named.extend(arguments[1..].iter().map(|argument| argument.split('=').next().unwrap().to_owned()));
    }
    for flag in named {
        assert!(known.contains(flag.as_str()), "`defragd serve` has no {flag}");
    }
}

#[test]
fn the_port_that_is_listened_on_is_the_one_that_is_opened_probed_and_served() {
    let help = help("serve");
    for file in rendered() {
        let path = file.path.display();
        let pod = file.pod().unwrap();
        let container = &pod["containers"][0];
        let arguments = arguments(pod);
        let listened = flag(&arguments, "--web.listen-address").unwrap().rsplit_once(':').unwrap().1;
        let opened = &container["ports"][0];
        assert_eq!(opened["containerPort"].to_string(), listened, "{path}");
        let name = text(&opened["name"]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], name, "{path}: {probe}");
        }
        // Nobody reaches the pods of a CronJob.
        let reached = |policy: &&Value| !array(&policy["spec"]["ingress"]).is_empty();
        for policy in file.of_kind("NetworkPolicy").filter(reached) {
            assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], name, "{path}");
        }
        let service = file.of_kind("Service").next().unwrap();
        assert_eq!(service["spec"]["ports"][0]["targetPort"], name, "{path}");
        // The program's own port, as in every example of Prometheus and Alertmanager.
        let port = service["spec"]["ports"][0]["port"].to_string();
        assert!(help.contains(&format!("127.0.0.1:{port}]")), "{path}: {port} is not the program's default");
        for monitor in file.of_kind("ServiceMonitor") {
            let endpoint = &monitor["spec"]["endpoints"][0];
            assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"], "{path}");
            assert!(help.contains(&format!("[default: {}]", text(&endpoint["path"]))), "{path}");
            let job = text(&monitor["spec"]["jobLabel"]);
            assert_eq!(
                service["metadata"]["labels"][job], "defragd",
                "{path}: the alert DefragdDown asks for this job"
            );
        }
        for config in file.of_kind("AlertmanagerConfig") {
            let targets = array(&config["spec"]["receivers"][0]["webhookConfigs"]);
            let urls: Vec<_> = targets.iter().map(|target| text(&target["url"]).to_owned()).collect();
            let (name, namespace) = (text(&service["metadata"]["name"]), text(&service["metadata"]["namespace"]));
            let workload = file.workload().unwrap();
            let hosts: Vec<_> = match workload["spec"]["serviceName"]
                .as_str()
                .filter(|_| shard(file.pod().unwrap()).is_none())
            {
                // A shard forwards what another one must do.
                None => vec![format!("{name}.{namespace}.svc:{port}")],
                // A StatefulSet: every replica, by the name that its headless Service gives it.
                Some(headless) => {
                    let service = file.of_kind("Service").find(|service| service["metadata"]["name"] == headless);
                    assert_eq!(service.unwrap()["spec"]["clusterIP"], "None", "{path}");
                    let (pods, replicas) = (text(&workload["metadata"]["name"]), &workload["spec"]["replicas"]);
                    let replicas = replicas.as_u64().unwrap();
                    (0..replicas).map(|index| format!("{pods}-{index}.{headless}.{namespace}.svc:{listened}")).collect()
                }
            };
            let expected: Vec<_> = hosts.iter().map(|host| format!("http://{host}/api/v1/alerts")).collect();
            assert_eq!(urls, expected, "{path}");
            let token = &targets[0]["httpConfig"];
            assert!(targets.iter().all(|target| target["httpConfig"] == *token && token.is_object()), "{path}");
        }
    }
}

#[test]
fn a_pod_may_write_nothing_but_its_journal_and_is_nobody() {
    for file in rendered() {
        let path = file.path.display();
        let pod = file.pod().unwrap();
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{path}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{path}");
        assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{path}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{path}");
        let writable: Vec<_> = array(&container["volumeMounts"])
            .iter()
            .filter(|mount| mount["readOnly"] != true)
            .map(|mount| &mount["mountPath"])
            .collect();
        let arguments = arguments(pod);
        assert_eq!(writable, flag(&arguments, "--data-dir").into_iter().collect::<Vec<_>>(), "{path}");
        // Only who reads the keys of root's own must be root.
        let roots = ["/etc/kubernetes/pki/etcd", "/var/lib/rancher/"];
        let root_reads = array(&pod["volumes"]).iter().any(|volume| {
            volume["hostPath"]["path"].as_str().is_some_and(|path| roots.iter().any(|root| path.starts_with(root)))
        });
        assert_eq!(pod["securityContext"]["runAsNonRoot"], !root_reads, "{path}");
        assert_eq!(pod["securityContext"]["runAsUser"] == 0, root_reads, "{path}");
        pods::has_no_right_that_nothing_needs(&file);
    }
}

#[test]
fn a_pod_waits_for_its_member_for_as_long_as_the_program_does() {
    for file in rendered() {
        let pod = file.pod().unwrap();
        let arguments = arguments(pod);
        let path = file.path.display();
        let Some(grace) = flag(&arguments, "--shutdown-grace") else {
            assert!(arguments.contains(&"--exporter-only".to_owned()), "{path}");
            continue;
        };
        let grace: u64 = grace.strip_suffix('s').unwrap().parse().unwrap();
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > grace, "{path}");
        // One that is frozen is not waited for: it is replaced within 90 seconds.
        let probe = &pod["containers"][0]["livenessProbe"];
        let seconds = |key: &str| probe[key].as_u64().unwrap_or_else(|| panic!("{path}: no {key} in {probe}"));
        let noticed = seconds("periodSeconds") * seconds("failureThreshold") + seconds("timeoutSeconds");
        assert!(noticed + seconds("terminationGracePeriodSeconds") <= 90, "{path}: {probe}");
    }
    let unit = read("deploy/systemd/defragd.service");
    assert!(unit.contains("--shutdown-grace 10m") && unit.contains("\nTimeoutStopSec=11min"));
}

#[test]
fn one_pod_acts_or_there_is_a_lock_and_a_journal_for_each() {
    let (help, of_run) = (help("serve"), help("run"));
    let mut with_lock = 0;
    for file in rendered() {
        let (path, spec, pod) = (file.path.display(), &file.workload().unwrap()["spec"], file.pod().unwrap());
        let arguments = arguments(pod);
        if arguments.contains(&"--exporter-only".to_owned()) {
            continue;
        }
        let env = array(&pod["containers"][0]["env"]);
        let variables: Vec<_> = env.iter().map(|variable| text(&variable["name"])).collect();
        for ours in variables.iter().filter(|name| name.starts_with("DEFRAGD_")) {
            // For `kubectl exec … defragd run`.
            let help = if *ours == "DEFRAGD_TOKEN_FILE" { &of_run } else { &help };
            assert!(help.contains(&format!("[env: {ours}=")), "{path}: {ours}");
        }
        let Some(kind) = flag(&arguments, "--lock.kind") else {
            assert_eq!(spec["replicas"], 1, "{path}");
            assert_eq!(spec["strategy"], serde_json::json!({"type": "Recreate"}), "{path}");
            continue;
        };
        with_lock += 1;
        assert!(["etcd", "kubernetes"].contains(&kind), "{path}");
        let value = |name: &str| &env.iter().find(|variable| variable["name"] == name).unwrap()["value"];
        assert!(text(value("DEFRAGD_LOCK_URL")).starts_with("http://$(POD_IP):"), "{path}");
        let at = |name: &str| variables.iter().position(|variable| *variable == name).unwrap();
        assert!(at("POD_IP") < at("DEFRAGD_LOCK_URL"), "{path}: only what comes before is put in");
        let claims: Vec<_> =
            array(&spec["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]).collect();
        assert_eq!(claims, ["journal"], "{path}");
        assert_eq!(file.of_kind("PersistentVolumeClaim").count(), 0, "{path}");
        // They reach each other.
        let policy = &file.of_kind("NetworkPolicy").next().unwrap()["spec"];
        let (each_other, own) =
            (serde_json::json!({"podSelector": policy["podSelector"]}), &policy["ingress"][0]["from"]);
        assert!(array(own).contains(&each_other), "{path}: {own}");
        let out = array(&policy["egress"]).iter().any(|rule| array(&rule["to"]).contains(&each_other));
        assert!(out, "{path}: {}", policy["egress"]);
    }
    assert!(with_lock >= 2 || std::env::var_os("DEFRAGD_RENDERED").is_none(), "{with_lock} have one");
}

#[test]
fn a_cron_job_runs_the_program_with_the_credentials_of_the_pod_that_only_exports() {
    let known = Command::new(binary()).args(["run", "--help"]).output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    let mut files = rendered();
    files.push(Rendered::read(root().join("deploy/kustomize/components/cronjob/cronjob.yaml")));
    let mut jobs = 0;
    for file in &files {
        let path = file.path.display();
        for cron in file.of_kind("CronJob") {
            jobs += 1;
            let (spec, job) = (&cron["spec"], &cron["spec"]["jobTemplate"]["spec"]);
            let (pod, container) = (&job["template"]["spec"], &job["template"]["spec"]["containers"][0]);
            assert_eq!(spec["concurrencyPolicy"], "Forbid", "{path}");
            // The same as what a schedule of `defragd serve` catches up.
            let catches_up = defragd::core::schedule::CATCH_UP.as_secs();
            assert_eq!(spec["startingDeadlineSeconds"], catches_up, "{path}");
            assert_eq!((&job["backoffLimit"], &pod["restartPolicy"]), (&0.into(), &"Never".into()), "{path}");
            assert!(job["activeDeadlineSeconds"].as_u64().unwrap() >= 3600, "{path}");
            assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 600, "{path}");
            let arguments = arguments(pod);
            assert_eq!(arguments[0], "run", "{path}");
            for flag in &arguments[1..] {
                let name = flag.split('=').next().unwrap();
                assert!(flags(&known).contains(name), "{path}: `defragd run` has no {name}");
            }
            let writable: Vec<_> =
                array(&container["volumeMounts"]).iter().filter(|mount| mount["readOnly"] != true).collect();
            assert_eq!(writable.len(), 1, "{path}: {writable:?}");
            let journal = text(&writable[0]["mountPath"]);
            assert!(flag(&arguments, "--data-dir").unwrap().starts_with(&format!("{journal}/")), "{path}");
            let of_jobs = &job["template"]["metadata"]["labels"];
            for service in file.of_kind("Service") {
                let selector = service["spec"]["selector"].as_object().unwrap();
                assert!(selector.iter().any(|(name, value)| of_jobs[name] != *value), "{path}: {of_jobs}");
            }
            pods::job_runs(&arguments, &path.to_string());
            // The component is one half: the Deployment comes from the base.
            let Some(exporter) = file.pod() else { continue };
            let exports = self::arguments(exporter);
            assert!(exports.contains(&"--exporter-only".to_owned()), "{path}: two would act");
            let credentials = |pod: &Value, of: &str, name: &str| -> Vec<Value> {
                let is_one = |one: &&Value| {
                    one["name"].as_str().is_some_and(|name| name.starts_with("secret-") || name == "host-pki")
                };
                let all = if of == "volumes" { &pod[of] } else { &pod["containers"][0][of] };
                array(all).iter().filter(is_one).map(|one| one[name].clone()).collect()
            };
            for (of, name) in [("volumes", "secret"), ("volumes", "hostPath"), ("volumeMounts", "mountPath")] {
                assert_eq!(credentials(pod, of, name), credentials(exporter, of, name), "{path}: {of}");
            }
            for same in
                ["securityContext", "serviceAccountName", "nodeSelector", "tolerations", "hostNetwork", "dnsPolicy"]
            {
                assert_eq!(pod[same], exporter[same], "{path}: {same}");
            }
            let (own, its) = (&container["securityContext"], &exporter["containers"][0]["securityContext"]);
            assert_eq!((own, &container["image"]), (its, &exporter["containers"][0]["image"]), "{path}");
        }
    }
    assert!(jobs >= if std::env::var_os("DEFRAGD_RENDERED").is_some() { 4 } else { 1 }, "{jobs} CronJobs");
}

#[test]
fn the_units_port_is_the_programs_and_its_watchdog_waits_longer_than_the_program_is_silent() {
    let (unit, socket, help) =
        (read("deploy/systemd/defragd.service"), read("deploy/systemd/defragd.socket"), help("serve"));
    let setting = |text: &str, name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}=")));
        let value = lines.next().unwrap_or_else(|| panic!("there is no {name}")).to_owned();
        assert_eq!(lines.next(), None, "{name} is there twice");
        value
    };
    assert!(help.contains(&format!("[default: {}]", setting(&socket, "ListenStream"))), "{socket}");
    assert!(socket.contains("--web.systemd-socket") && help.contains("--web.systemd-socket"));
    // The way to the socket is the unit's own command and one flag more.
    assert!(socket.contains(&format!("ExecStart={} --web.systemd-socket", setting(&unit, "ExecStart"))), "{socket}");
    assert_eq!((setting(&unit, "Type").as_str(), setting(&unit, "NotifyAccess").as_str()), ("notify", "main"));
    let watchdog: u64 = setting(&unit, "WatchdogSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(watchdog >= 30, "it hears from the program every 10 s, or on a busy machine some seconds later");
}

#[test]
fn the_images_health_check_is_a_command_of_the_program() {
    let dockerfile = read("Dockerfile");
    let (_, check) = dockerfile.split_once("HEALTHCHECK ").unwrap();
    let (_, command) = check.lines().next().unwrap().split_once(" CMD ").unwrap();
    let words: Vec<String> = serde_json::from_str(command).unwrap();
    assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{}\"]", words[0])), "it is the image's program");
    // Nobody is there: unhealthy, which is 1, and not a mistake in the command, which would be 2.
    let ended = Command::new(binary()).args(&words[1..]).env("DEFRAGD_SERVER", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    let help = Command::new(binary()).args(&words[1..]).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("[default: http://127.0.0.1:9379]") && help.contains("env: DEFRAGD_SERVER"), "{help}");
}

#[test]
fn the_rules_of_the_operator_are_those_of_alerts() {
    let file = "deploy/kustomize/components/prometheus-operator/prometheus-operator.yaml";
    let mut files = rendered();
    files.push(Rendered::read(root().join(file)));
    let shipped = yaml(&read("alerts/defragd.rules.yml"), Path::new("alerts/defragd.rules.yml"));
    let rules: Vec<_> = files.iter().flat_map(|file| file.of_kind("PrometheusRule")).collect();
    assert!(!rules.is_empty());
    for rule in rules {
        assert!(rule["spec"] == shipped, "the PrometheusRule has other rules than alerts/: make deploy-generated");
    }
}
