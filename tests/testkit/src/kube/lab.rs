//! The node's programs, and what a test asks of them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Image, KubeApiserver, node};
use crate::{EtcdCluster, EtcdSpec, Tools, process::Process, until};

pub(super) const PAUSE: &str = "localhost/pause:lab";
pub(super) const SHELL: &str = "localhost/shell:lab";

/// Each step takes seconds on a quiet machine.
const READY: Duration = Duration::from_mins(3);

/// A node and its control plane. Only inside [`super::in_node`], and with it everything ends.
#[derive(Debug)]
pub struct KubeLab {
    tools: Tools,
    dir: TempDir,
    kubeconfig: PathBuf,
    etcd: EtcdCluster,
    api: KubeApiserver,
    containerd: Process,
    others: Vec<Process>,
}

/// The users of the node's programs, as lines of `--token-auth-file`: token, user, UID, groups.
const USERS: &str = "\
lab-controllers,system:kube-controller-manager,controllers
lab-scheduler,system:kube-scheduler,scheduler
lab-proxy,system:kube-proxy,proxy
lab-kubelet,system:node:node1,kubelet,\"system:nodes\"
";

impl KubeLab {
    /// Starts everything, on an etcd of its own, imports the images, and waits until the node is ready.
    pub async fn start(etcd: &EtcdSpec, images: &[Image]) -> Result<Self> {
        ensure!(crate::is_inside(), "only on a node of one's own");
        let tools = Tools::find()?;
        let dir = tempfile::Builder::new().prefix("lab-").tempdir()?;
        let etcd = EtcdCluster::start(&tools, etcd).await?;
        let containerd = start_containerd(&tools, dir.path()).await?;
        let log = |name: &str| dir.path().join(format!("{name}.log"));

        let address = node::ADDRESS;
        let flags = [
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={address}"),
            format!("--service-cluster-ip-range={}", node::SERVICES),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // Instead of five minutes: tests wait for it.
            "--etcd-compaction-interval=10s".to_owned(),
        ];
        let urls = etcd.endpoints();
        let api = KubeApiserver::start_with(&tools, (&etcd, &urls), &log("kube-apiserver"), &flags, USERS).await?;
        let kubeconfig = api.admin_kubeconfig(dir.path().join("admin.kubeconfig"))?;
        let mut lab = Self { tools, dir, kubeconfig, etcd, api, containerd, others: Vec::new() };
        let pause = Image::pause(&lab.tools)?;
        let shell = Image::shell(&lab.tools)?;
        for image in [&pause, &shell].into_iter().chain(images) {
            lab.import(image).await?;
        }
        lab.start_node().await?;
        Ok(lab)
    }

    async fn start_node(&mut self) -> Result<()> {
        let path = |path: &Path| path.display().to_string();
        let access = |api: &KubeApiserver, dir: &Path, user: &str| -> Result<String> {
            Ok(path(&api.kubeconfig(dir.join(format!("{user}.kubeconfig")), &format!("lab-{user}"))?))
        };
        let (dir, pki) = (self.dir.path().to_owned(), self.api.pki());
        let controllers = access(&self.api, &dir, "controllers")?;
        let scheduler = access(&self.api, &dir, "scheduler")?;
        let kubelet = access(&self.api, &dir, "kubelet")?;
        let proxy = access(&self.api, &dir, "proxy")?;
        let admin = path(&self.kubeconfig);
        let (signing_key, ca) = (path(&pki.peer().key), path(pki.ca()));
        fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        fs::write(dir.join("kubelet.json"), kubelet_settings(&dir).to_string())?;
        fs::write(dir.join("proxy.json"), proxy_settings(&proxy).to_string())?;
        let own = |flags: &[&str]| flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>();

        self.spawn(
            "kube-controller-manager",
            &own(&[
                &format!("--kubeconfig={controllers}"),
                &format!("--authentication-kubeconfig={controllers}"),
                &format!("--authorization-kubeconfig={controllers}"),
                &format!("--service-account-private-key-file={signing_key}"),
                &format!("--root-ca-file={ca}"),
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
            ]),
        )?;
        self.spawn(
            "kube-scheduler",
            &own(&[
                &format!("--kubeconfig={scheduler}"),
                &format!("--authentication-kubeconfig={scheduler}"),
                &format!("--authorization-kubeconfig={scheduler}"),
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
            ]),
        )?;
        self.spawn(
            "kubelet",
            &own(&[
                &format!("--config={}", path(&dir.join("kubelet.json"))),
                &format!("--kubeconfig={kubelet}"),
                &format!("--root-dir={}", path(&dir.join("kubelet"))),
                "--hostname-override=node1",
                &format!("--node-ip={}", node::ADDRESS),
            ]),
        )?;
        self.spawn(
            "kube-proxy",
            &own(&[&format!("--config={}", path(&dir.join("proxy.json"))), "--hostname-override=node1"]),
        )?;
        until("the node to be ready", READY, || async {
            self.others.iter().try_for_each(Process::ensure_running)?;
            let ready = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            let ready = self.kubectl(&["get", "node", "node1", ready]).await?;
            ensure!(ready == "True", "Ready is {ready:?}");
            Ok(())
        })
        .await
        .with_context(|| self.others.iter().map(|process| process.tail(10)).collect::<Vec<_>>().join("\n---\n"))?;
        // Before the node is there, it ends without a word, and everything is open.
        self.spawn(
            "kube-netpol",
            &own(&[
                &format!("--kubeconfig={admin}"),
                "--hostname-override=node1",
                &format!("--service-cluster-ip-range={}", node::SERVICES),
                "--enable-ipv6=false",
            ]),
        )?;
        // As on a node of kubeadm's. Pods of this lab that are not defragd's tolerate it.
        self.kubectl(&["label", "node", "node1", "node-role.kubernetes.io/control-plane="]).await?;
        self.kubectl(&["taint", "node", "node1", "node-role.kubernetes.io/control-plane=:NoSchedule"]).await?;
        self.has_account("default").await
    }

    fn spawn(&mut self, name: &str, args: &[String]) -> Result<()> {
        let program = self.tools.node_program(name).with_context(|| format!("there is no {name} here"))?;
        let log = self.dir.path().join(format!("{name}.log"));
        self.others.push(Process::spawn(name, &program, args, &self.paths(), &log)?);
        Ok(())
    }

    /// The programs call one another by name.
    fn paths(&self) -> Vec<(String, String)> {
        search_path(&self.tools)
    }

    /// Makes an image known to the node, for pods with `imagePullPolicy: Never`.
    pub async fn import(&self, image: &Image) -> Result<()> {
        let dir = self.dir.path().join("images");
        fs::create_dir_all(&dir)?;
        let archive = image.build(&dir)?;
        let ctr = self.tools.node_program("ctr").context("there is no ctr here")?;
        let mut import = Command::new(ctr);
        import
            .arg("--address")
            .arg(socket(self.dir.path()))
            .args(["--namespace", "k8s.io", "image", "import"])
            .arg(&archive);
        let output = import.output().await?;
        ensure!(
            output.status.success(),
            "ctr image import {}: {}\n{}",
            image.name,
            String::from_utf8_lossy(&output.stderr),
            self.containerd.tail(10)
        );
        fs::remove_file(archive)?;
        Ok(())
    }

    /// The control plane's etcd.
    pub fn etcd(&self) -> &EtcdCluster {
        &self.etcd
    }

    pub fn api(&self) -> &KubeApiserver {
        &self.api
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Where logs and volumes are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Creates a namespace, in which pods can be created.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name]).await?;
        self.has_account(name).await
    }

    /// Before its controller has made the account `default`, a namespace accepts no pod.
    async fn has_account(&self, namespace: &str) -> Result<()> {
        let account = ["-n", namespace, "get", "serviceaccount", "default"];
        until("the account `default`", READY, || async { self.kubectl(&account).await.map(drop) }).await
    }

    /// Creates a class `local`, the default, and as many volumes of it.
    pub async fn volumes(&self, count: usize) -> Result<()> {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
        self.apply(&class).await?;
        for n in 0..count {
            let path = self.dir.path().join(format!("volume-{n}"));
            fs::create_dir_all(&path)?;
            let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]);
            // `local`, as the kubelet gives a volume of `hostPath` to no group.
            let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("local-{n}")},
                "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                    "persistentVolumeReclaimPolicy": "Retain", "local": {"path": path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}}}});
            self.apply(&volume).await?;
        }
        Ok(())
    }

    /// A pod with a shell that sleeps, in a namespace, and ready. For `kubectl exec NAME -- …`.
    pub async fn shell(&self, namespace: &str, name: &str) -> Result<()> {
        let container =
            json!({"name": "c", "image": SHELL, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1, "containers": [container]}});
        self.apply(&pod).await?;
        self.kubectl(&["-n", namespace, "wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=120s"])
            .await?;
        Ok(())
    }

    /// `kubectl apply`.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let file = self.dir.path().join("apply.json");
        fs::write(&file, object.to_string())?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await.map(drop)
    }

    /// What kubectl prints, as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.run(&self.tools.node_program("kubectl").context("there is no kubectl here")?, args).await
    }

    /// What helm prints.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.run(&self.tools.node_program("helm").context("there is no helm here: tests/testkit/tools --deploy")?, args)
            .await
    }

    async fn run(&self, program: &Path, args: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.dir.path())
            .kill_on_drop(true)
            .output()
            .await?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{} {args:?} ended with {}: {err}{out}", program.display(), output.status);
        Ok(out.into_owned())
    }
}

fn search_path(tools: &Tools) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    vec![("PATH".to_owned(), format!("{}:{path}:/usr/sbin:/sbin", tools.dir().display()))]
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

async fn start_containerd(tools: &Tools, dir: &Path) -> Result<Process> {
    let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
         "ipam": {"type": "host-local", "dataDir": dir.join("addresses"), "ranges": [[{"subnet": node::PODS}]],
                  "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]});
    fs::create_dir_all(dir.join("cni"))?;
    fs::write(dir.join("cni/10-pods.conflist"), network.to_string())?;
    let root = dir.display();
    // Without CAP_SYS_RESOURCE, as in most containers, runc cannot lower a score.
    let settings = format!(
        "version = 2\nroot = \"{root}/containerd\"\nstate = \"{root}/containerd-state\"\n\
         disabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \
         \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.devmapper\"]\n\
         [grpc]\naddress = \"{root}/containerd.sock\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\ndisable_apparmor = true\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{root}/cni\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\ndefault_runtime_name = \"runc\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
    );
    let file = dir.join("containerd.toml");
    fs::write(&file, settings)?;
    let program = tools.node_program("containerd").context("there is no containerd here")?;
    let args = ["--config".to_owned(), file.display().to_string()];
    let containerd = Process::spawn("containerd", &program, &args, &search_path(tools), &dir.join("containerd.log"))?;
    let ctr = tools.node_program("ctr").context("there is no ctr here")?;
    containerd
        .ready(READY, || async {
            let output = Command::new(&ctr).arg("--address").arg(socket(dir)).arg("version").output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })
        .await?;
    Ok(containerd)
}

fn kubelet_settings(dir: &Path) -> Value {
    // Its own API is open: nothing here tests it, and the node's network ends at the node.
    json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": format!("unix://{}", socket(dir).display()),
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": ["198.19.0.10"],
        "clusterDomain": "cluster.local",
        "failSwapOn": false,
        // Instead of a minute: tests wait for a changed Secret to be in its pods.
        "syncFrequency": "10s",
        "podLogsDir": dir.join("pod-logs"),
        "resolvConf": dir.join("resolv.conf"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99})
}

fn proxy_settings(kubeconfig: &str) -> Value {
    // Limits of connection tracking are the machine's: zero leaves them.
    json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": node::PODS,
        "clientConnection": {"kubeconfig": kubeconfig},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249"})
}
