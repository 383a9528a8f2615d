//! The stores of the lock on real servers: each line of etcd, and a real kube-apiserver where there is one.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use defragd::{
    adapters::{
        etcd::{EtcdCluster as Etcd, Sources},
        lock::{EtcdLock, KubernetesLock},
    },
    core::lock::{Holder, LockAnswer, Term},
    ports::lock::{KubernetesKeys, LockCandidate, LockStore},
};
use serde_json::json;
use testkit::{
    EtcdCluster, EtcdSpec, EtcdVersion, KubeApiserver, Tools, Transport, exhaust_quota, on_each_version, until,
};
use tokio::time::{Instant, sleep};

use crate::{
    faults,
    rig::{MIB, MINUTE},
};

/// The least that the configuration allows.
const TTL: Duration = Duration::from_secs(10);

fn me(name: &str) -> Holder {
    Holder { name: name.to_owned(), url: Some(format!("https://{name}.example/defragd")) }
}

fn replica(cluster: &EtcdCluster, name: &str) -> EtcdLock {
    replica_at(cluster.endpoints(), name)
}

fn replica_at(endpoints: Vec<String>, name: &str) -> EtcdLock {
    let etcd = Etcd::open(Sources { endpoints, ..Sources::default() }).unwrap();
    let candidate = LockCandidate { cluster: "a/b".to_owned(), me: me(name), ttl: TTL };
    EtcdLock::new(etcd, "/defragd/lock/".to_owned(), candidate)
}

async fn term(store: &dyn LockStore) -> Term {
    match store.renew_candidacy().await.unwrap() {
        LockAnswer::Held { term, ttl } => {
            assert_eq!(ttl, TTL);
            term
        }
        LockAnswer::Elsewhere { holder } => panic!("{holder:?} holds it"),
    }
}

async fn holder(store: &dyn LockStore) -> Holder {
    match store.renew_candidacy().await.unwrap() {
        LockAnswer::Held { term, .. } => panic!("it holds it under term {term}"),
        LockAnswer::Elsewhere { holder } => holder,
    }
}

/// Renews until this one holds; gives how long after that moment.
async fn taken_over(second: &dyn LockStore, since: Instant) -> Duration {
    until("the takeover", MINUTE, || async {
        match second.renew_candidacy().await {
            Ok(LockAnswer::Held { .. }) => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    since.elapsed()
}

/// All of them renew, as replicas that live do, until this is done: it may take longer than the TTL.
async fn while_renewed<T>(stores: [&EtcdLock; 3], work: impl Future<Output = T>) -> T {
    let is_done = AtomicBool::new(false);
    let work = async {
        let done = work.await;
        is_done.store(true, Ordering::Relaxed);
        done
    };
    let renewals = async {
        // To the end of each: one that is given up may have been recorded.
        while !is_done.load(Ordering::Relaxed) {
            let [one, two, three] = stores.map(LockStore::renew_candidacy);
            let _ = tokio::join!(one, two, three);
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(work, renewals).0
}

on_each_version! { the_oldest_candidate_holds_on _ => oldest }

async fn oldest(version: EtcdVersion) {
    let tools = Tools::find().unwrap();
    // An election extends leases, and nobody can renew in it.
    let spec = EtcdSpec::new(version).transport(Transport::Plain).quota_bytes(32 * MIB).patient();
    let cluster = EtcdCluster::start(&tools, &spec).await.unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| replica(&cluster, name));
    let first = term(&one).await;
    assert_eq!(holder(&two).await, me("one"));
    assert_eq!(holder(&three).await, me("one"));
    assert_eq!(term(&one).await, first, "a renewal is no new term");

    // Only the lock holder may write the note, and every replica may read it.
    assert_eq!(two.read_note().await.unwrap(), None);
    one.write_note(first, "paused").await.unwrap();
    assert!(two.write_note(first, "forged").await.is_err());
    assert!(one.write_note(Term(first.0 + 1), "of another term").await.is_err());
    assert_eq!(two.read_note().await.unwrap().as_deref(), Some("paused"));

    // An orderly end: at once.
    one.release().await;
    let second = term(&two).await;
    assert!(second > first);
    assert_eq!(holder(&three).await, me("two"));
    assert_eq!(holder(&one).await, me("two"), "it stands anew, behind the others");
    assert!(one.write_note(first, "of a holder that was").await.is_err());

    // Deleting the holder's key by hand takes the lock away, and the holder notices at its next renewal.
    let mut client = cluster.client(0).await.unwrap();
    let keys = client.get("/defragd/lock/a%2Fb/candidates/", Some(etcd_client::GetOptions::new().with_prefix())).await;
    let keys: Vec<_> = keys.unwrap().kvs().iter().map(|kv| (kv.create_revision(), kv.key().to_vec())).collect();
    let (_, oldest) = keys.iter().min().unwrap();
    client.delete(oldest.clone(), None).await.unwrap();
    assert!(two.renew_candidacy().await.is_err());
    let third = term(&three).await;
    assert_eq!(holder(&two).await, me("three"));

    // Without space: renewals, takeovers and releases still work; new candidates are refused.
    while_renewed([&one, &two, &three], Box::pin(exhaust_quota(&cluster, 4 * MIB))).await.unwrap();
    assert_eq!(term(&three).await, third);
    assert!(three.write_note(third, "under NOSPACE").await.is_err());
    assert_eq!(holder(&replica(&cluster, "four")).await, me("three"), "it cannot stand, and knows who holds");
    // A replica that is gone: its lease ends, and not before it. Counted from before its last renewal.
    let since = Instant::now();
    assert_eq!(term(&three).await, third);
    let mut row = vec![one, two];
    drop(three);
    until("the takeover", MINUTE, || async {
        for store in &row {
            if let Ok(LockAnswer::Held { .. }) = store.renew_candidacy().await {
                return Ok(());
            }
        }
        anyhow::bail!("nobody holds it")
    })
    .await
    .unwrap();
    let waited = since.elapsed();
    eprintln!(
        "etcd {version}: another replica held the lock {:.1} s after the holder was last seen",
        waited.as_secs_f64()
    );
    assert!(waited + Duration::from_secs(1) >= TTL, "{waited:?}");
    let next = row.remove(0);
    assert!(term(&next).await > third || holder(&next).await == me("two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_that_hangs_does_not_cost_the_lock() {
    let tools = Tools::find().unwrap();
    // The one that hangs must stay a follower.
    let spec = EtcdSpec::new(faults::newest()).transport(Transport::Plain).patient();
    let cluster = EtcdCluster::start(&tools, &spec).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let hung = (leader + 1) % 3;
    // Only this one is configured; the others' addresses are learned from it.
    let one = replica_at(vec![cluster.endpoints()[hung].clone()], "one");
    let first = term(&one).await;
    cluster.pause(hung).unwrap();
    // Twice as long as the lock lasts without a renewal, by which it would have another term.
    let end = Instant::now() + TTL * 2;
    while Instant::now() < end {
        let since = Instant::now();
        assert_eq!(term(&one).await, first);
        eprintln!("renewed in {:?}", since.elapsed());
        sleep(Duration::from_secs(2)).await;
    }
    cluster.resume(hung).unwrap();
}

/// The name of the namespace with the Leases.
pub(crate) const NAMESPACE: &str = "locks";

/// A namespace, an account in it that may do nothing yet, and how it is reached.
pub(crate) async fn kubeconfig(api: &KubeApiserver, dir: &Path) -> PathBuf {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.create("/api/v1/namespaces", &namespace).await.unwrap();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "defragd"}});
    api.create(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), &account).await.unwrap();
    let token = api.token(NAMESPACE, "defragd").await.unwrap();
    api.kubeconfig(dir.join("kubeconfig"), &token).unwrap()
}

/// The permissions that docs/replicas.md says the account needs, and no more.
pub(crate) async fn grant_leases(api: &KubeApiserver) {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "defragd-lock"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}],
    });
    api.create(&format!("{rbac}/roles"), &role).await.unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "defragd-lock"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "defragd-lock"},
        "subjects": [{"kind": "ServiceAccount", "name": "defragd", "namespace": NAMESPACE}],
    });
    api.create(&format!("{rbac}/rolebindings"), &binding).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_kubernetes_is_held_by_one_given_up_and_taken_over() {
    let tools = Tools::find().unwrap();
    if tools.kube_apiserver().is_none() {
        testkit::skipped("no kube-apiserver here; `make tools-kube` builds one");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    let etcd = EtcdCluster::start(&tools, &spec).await.unwrap();
    let api = KubeApiserver::start(&tools, &etcd, &dir.path().join("kube-apiserver.log")).await.unwrap();
    let kubeconfig = kubeconfig(&api, dir.path()).await;
    let replica = |name: &str| {
        let kubeconfig = Some(kubeconfig.clone());
        let keys = KubernetesKeys { kubeconfig, namespace: Some(NAMESPACE.to_owned()), ..KubernetesKeys::default() };
        KubernetesLock::new(keys, LockCandidate { cluster: "Prod A".to_owned(), me: me(name), ttl: TTL })
    };
    let [one, two] = ["one", "two"].map(replica);
    let denied = one.renew_candidacy().await.unwrap_err();
    assert!(denied.detail.contains("403"), "{denied:?}");
    grant_leases(&api).await;
    until("the permission to be known", MINUTE, || async {
        one.renew_candidacy().await.map(drop).map_err(|unknown| anyhow::anyhow!("{}", unknown.detail))
    })
    .await
    .unwrap();

    let first = term(&one).await;
    assert_eq!(holder(&two).await, me("one"));
    one.write_note(first, "paused").await.unwrap();
    assert!(two.write_note(first, "forged").await.is_err());
    assert_eq!(two.read_note().await.unwrap().as_deref(), Some("paused"));
    assert_eq!(term(&one).await, first);

    let one = Arc::new(one);
    one.release().await;
    let second = term(&two).await;
    assert!(second > first);
    // The dead one's: as long as it is seen without a change, counted from before it is first seen.
    let since = Instant::now();
    assert_eq!(holder(one.as_ref()).await, me("two"));
    drop(two);
    let waited = taken_over(one.as_ref(), since).await;
    eprintln!("another replica held the Lease {:.1} s after its holder was last seen", waited.as_secs_f64());
    assert!(waited + Duration::from_secs(1) >= TTL, "{waited:?}");
    assert!(term(one.as_ref()).await > second);
}
