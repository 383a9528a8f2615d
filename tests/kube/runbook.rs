//! The rows of docs/runbook.md where only a real Kubernetes can show them: a pod that crashes in a loop, a reverse proxy whose
//! Service has no endpoints, and an API server that does not answer while its own etcd is defragmented.

use serde_json::{Value, json};
use testkit::{DefragWatch, Image, until};

use crate::rig::{MIB, MINUTE, Rig};

const PROXY: &str = "localhost/nginx:lab";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn rows() {
    let rig = Rig::of_the_control_plane().await;
    crash_looping(&rig).await;
    let proxy = site(&rig).await;
    let port = rig.lab.api().port();
    let mut values = rig.values();
    let cluster = &mut values["config"]["clusters"][0];
    // P2: any one member leads to the others.
    cluster["endpoints"] = json!([rig.etcd().endpoints()[0]]);
    cluster["policy"]["pause_between_members"] = json!("10s");
    cluster["policy"]["cooldown"] = json!("1s");
    // Five runs, of which the default allows four.
    cluster["policy"]["max_runs_per_day"] = json!(5);
    let ca = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
    let api = format!("https://198.18.0.1:{port}/readyz");
    cluster["gates"] = json!([
        {"name": "apiserver", "http": {"url": api, "expect_body": "^ok$", "timeout": "2s", "tls": {"ca_file": ca}}},
        {"name": "pods", "kubernetes_pods": {"grace": "12s"}},
        {"name": "ingress", "http": {"url": format!("http://{proxy}/"), "headers": {"Host": "www.example.org"},
            "expect_body": "welcome"}},
    ]);
    values["rbac"] = json!({"podsGate": true});
    values["networkPolicy"]["egress"]["extra"] = json!([
        {"to": [{"ipBlock": {"cidr": "198.18.0.1/32"}}], "ports": [{"port": port}]},
        {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "proxy"}}}], "ports": [{"port": 8080}]},
    ]);
    rig.install(&values).await;
    let url = rig.url().await;

    all_is_well(&rig, &url).await;
    // P7: the Service behind the proxy selects no pod.
    let select = async |app: &str| {
        let patch = json!({"spec": {"selector": {"app": app}}}).to_string();
        rig.lab.kubectl(&["patch", "service", "web", "-p", &patch]).await.unwrap();
    };
    Box::pin(stopped_by(&rig, &url, &["ingress"], select("nobody"), select("web"))).await;
    // P6: the API server hangs. Two gates ask it, and either may be the first that notices.
    let signal = async |signal: &str| rig.signal("/kube-apiserver\0", signal);
    stopped_by(&rig, &url, &["apiserver", "pods"], signal("STOP"), signal("CONT")).await;
}

/// P1 to P6 of a run that nothing disturbs.
async fn all_is_well(rig: &Rig, url: &str) {
    rig.rewrite_config_maps().await;
    let leader = rig.etcd().leader().await.unwrap();
    // P3
    let status = ["exec", "deployment/defragd", "--", "defragd", "status", "-o", "json", "--config"];
    let status = rig.kubectl(&[&status[..], &["/etc/defragd/config/config.yaml"]].concat()).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let members = status["clusters"][0]["members"].as_array().unwrap();
    let leaders: Vec<_> = members.iter().filter(|member| member["is_leader"] == true).collect();
    assert_eq!((members.len(), leaders.len()), (3, 1), "{status}");
    assert_eq!(leaders[0]["member"], rig.etcd().member(leader).name(), "{status}");

    let watch = DefragWatch::start(rig.etcd()).unwrap();
    rig.alert(url).await;
    let run = rig.run_when(url, "the run to end", |run| run["outcome"].is_string()).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    // P4
    let timeline = watch.stop().await;
    assert_eq!((timeline.order().len(), timeline.max_in_flight()), (3, 1), "{timeline:?}");
    assert_eq!(timeline.order()[2], leader, "the leader is the last one");
    // P5
    for member in run["members"].as_array().unwrap() {
        let size = |moment: &str| member[moment]["db_size_bytes"].as_u64().unwrap();
        assert!(size("before") > 40 * MIB && size("after") < 20 * MIB, "{member}");
    }
    // P1, P6, P7: before, after each member, and at the end. The pod that crashed all the time is no obstacle.
    for gate in ["apiserver", "pods", "ingress"] {
        let checks: Vec<_> = run["gates"].as_array().unwrap().iter().filter(|check| check["gate"] == gate).collect();
        assert!(checks.len() >= 4 && checks.iter().all(|check| check["passed"] == true), "{gate}: {run}");
    }
    let pods = run["gates"].as_array().unwrap().iter().find(|check| check["gate"] == "pods").unwrap();
    assert_eq!(pods["evidence"]["unhealthy"], 1, "{pods}");
}

/// What breaks after the first member stops the run; once it is repaired, another attempt does the rest.
async fn stopped_by(
    rig: &Rig,
    url: &str,
    gates: &[&str],
    breaks: impl Future<Output = ()>,
    repair: impl Future<Output = ()>,
) {
    rig.rewrite_config_maps().await;
    let earlier = rig.runs(url).await.unwrap();
    rig.alert(url).await;
    let new = |run: &Value| !earlier.iter().any(|other| other["id"] == run["id"]);
    rig.run_when(url, "its first member", |run| new(run) && run["members"][0]["member"].is_string()).await;
    breaks.await;
    let stopped = rig.run_when(url, "it to stop", |run| new(run) && run["outcome"].is_string()).await;
    assert_eq!(stopped["outcome"], "failed", "{stopped}");
    assert!(gates.iter().any(|gate| stopped["reason"]["gate"] == *gate), "{stopped}");
    let done = stopped["members"].as_array().unwrap().len();
    assert!(done < 3, "{stopped}");
    repair.await;
    let rest = rig.run_when(url, "another attempt", |run| run["outcome"] == "succeeded" && run["id"] != stopped["id"]);
    let rest = rest.await;
    assert_eq!(done + rest["members"].as_array().unwrap().len(), 3, "{stopped} {rest}");
}

/// A pod whose container ends at once, again and again.
async fn crash_looping(rig: &Rig) {
    rig.lab.apply(&pod("broken", "localhost/shell:lab", &["-c", "exit 1"], &json!([]), &json!([]))).await.unwrap();
    until("the pod to be restarted", MINUTE * 2, || async {
        let restarts = ["get", "pod", "broken", "-o=jsonpath={.status.containerStatuses[0].restartCount}"];
        let restarts = rig.lab.kubectl(&restarts).await?;
        anyhow::ensure!(restarts.parse::<u32>()? >= 2, "{restarts} restarts");
        Ok(())
    })
    .await
    .unwrap();
}

/// A web server, its Service, and a reverse proxy on it with a Service of its own, whose address this is.
async fn site(rig: &Rig) -> String {
    let nginx = rig.lab.tools().node_program("nginx").expect("there is no nginx here: make tools-kube");
    rig.lab.import(&Image::of_program(PROXY, &nginx).unwrap()).await.unwrap();
    for (name, target) in [("web", 8000), ("proxy", 8080)] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": target}]}});
        rig.lab.apply(&service).await.unwrap();
    }
    let web = rig.lab.kubectl(&["get", "service", "web", "-o=jsonpath={.spec.clusterIP}"]).await.unwrap();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path /tmp/{kind};"));
    let settings = format!(
        "daemon off; pid /tmp/pid; events {{}}\nhttp {{ access_log off; {}\n\
         server {{ listen 8080; location / {{ proxy_pass http://{web}; proxy_connect_timeout 1s; }} }} }}\n",
        temporary.concat()
    );
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxy"},
        "data": {"nginx.conf": settings}});
    rig.lab.apply(&settings).await.unwrap();
    let serve = "mkdir /tmp/w; echo welcome > /tmp/w/index.html; exec httpd -f -p 8000 -h /tmp/w";
    let mounts = json!([{"name": "tmp", "mountPath": "/tmp"}, {"name": "settings", "mountPath": "/etc/proxy"}]);
    let volumes = json!([{"name": "tmp", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "proxy"}}]);
    rig.lab.apply(&pod("web", "localhost/shell:lab", &["-c", serve], &mounts, &volumes)).await.unwrap();
    let args = ["-e", "stderr", "-c", "/etc/proxy/nginx.conf"];
    rig.lab.apply(&pod("proxy", PROXY, &args, &mounts, &volumes)).await.unwrap();
    let proxy = rig.lab.kubectl(&["get", "service", "proxy", "-o=jsonpath={.spec.clusterIP}"]).await.unwrap();
    until("the site to answer", MINUTE * 2, || async {
        let body = rig.try_get(&format!("http://{proxy}/")).await?;
        anyhow::ensure!(body.contains("welcome"), "{body}");
        Ok(())
    })
    .await
    .unwrap();
    proxy
}

fn pod(name: &str, image: &str, args: &[&str], mounts: &Value, volumes: &Value) -> Value {
    let container =
        json!({"name": "c", "image": image, "imagePullPolicy": "Never", "args": args, "volumeMounts": mounts});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1, "containers": [container],
            "volumes": volumes}})
}
