"""The members of some clusters: their files, their health, their defragmentations."""

from grafana import bars, dashboard, pairs, query, states, steps, table, timeseries, words
from queries import (
    ANNOTATIONS, CLUSTER, CLUSTER_VARIABLE, FULLNESS, MEMBER, MEMBER_VARIABLE, MEMBERS, RECLAIMABLE,
    SHARE, CLUSTERS, TOP_VARIABLE, by_name, highest, members, since_last_defrag, top,
)

GAUGE = {"type": "gauge", "mode": "basic"}
BYTES = {"unit": "bytes", "decimals": 1}
EACH = [
    (24, 9, table(
        "Members",
        "How is each member? "
        "Each member now: the size of its database, what a defragmentation would free, and how near the quota is.",
        [
            ("etcd_cluster", "Cluster", {}),
            ("member", "Member", {}),
            ("member_id", "ID", {}),
            ("version", "Version", {}),
            ("Up", members("up"), words(_0=("no", "red"), _1=("yes", "green"))),
            ("Leader", members("is_leader"), words(_0=("", "text"), _1=("leader", "blue"))),
            ("Size", members("db_size_bytes"), BYTES),
            ("In use", members("db_size_in_use_bytes"), BYTES),
            ("Reclaimable", members("db_reclaimable_bytes"), BYTES),
            ("Fragmentation", members("fragmentation_ratio"), {
                "unit": "percentunit", "decimals": 1, "min": 0, "max": 1, "thresholds": SHARE,
                "custom.cellOptions": GAUGE,
            }),
            ("Quota used", members("quota_usage_ratio"), {
                "unit": "percentunit", "decimals": 1, "min": 0, "max": 1, "thresholds": FULLNESS,
                "custom.cellOptions": GAUGE,
            }),
            ("Since last defrag", since_last_defrag(), {"unit": "s", "decimals": 1, "noValue": "-"}),
            # Only for its label.
            (None, f"max by (etcd_cluster, member, member_id, version) (defragd_member_info{{{MEMBERS}}})", {}),
        ],
        sort="Reclaimable",
    )),
]

FILES = [
    (12, 9, timeseries(
        "Fragmentation",
        "When does each member need a defragmentation? "
        "The free share of each member's database file. The line is 45 %, from which the default policy acts.",
        "percentunit",
        query(top(members("fragmentation_ratio")), MEMBER),
        thresholds=steps("transparent", (0.45, "orange")),
        high=1,
    )),
    (12, 9, timeseries(
        "Reclaimable",
        "How much would a defragmentation of each member return? "
        "Size minus data in use of each member. The line is 100 MiB, below which the default policy leaves a member "
        "alone.",
        "bytes",
        query(top(members("db_reclaimable_bytes")), MEMBER),
        thresholds=steps("transparent", (RECLAIMABLE, "orange")),
    )),
    (12, 9, timeseries(
        "Database size and in use",
        "Is a file large because of data or because of free space? "
        "The file's size (what the quota counts) and the part of it in use (what a defragmentation leaves).",
        "bytes",
        query(top(members("db_size_bytes")), MEMBER + " size"),
        query(top(members("db_size_in_use_bytes")), MEMBER + " in use"),
    )),
    (12, 9, timeseries(
        "Quota usage",
        "How near is each file to its quota? "
        "Database size over quota of each member. The lines: at 80 % an alert requests a run, at 90 % one is critical.",
        "percentunit",
        query(top(members("quota_usage_ratio")), MEMBER),
        thresholds=steps("transparent", (0.8, "orange"), (0.9, "red")),
        high=1,
    )),
]

DEFRAGMENTATIONS = [
    (12, 7, states(
        "Leader",
        "Who leads, and did that change during a run? "
        "Which member is the leader. A run defragments the leader last; investigate a change in the middle of a run.",
        top(members("is_leader")), MEMBER,
        _0=("follower", "rgba(128, 128, 128, 0.25)"), _1=("leader", "blue"),
    )),
    (12, 7, states(
        "Defragmentation in progress",
        "Which member is being defragmented? "
        "Which member is defragmenting: never two of one cluster at a time. The graph can miss defragmentations shorter "
        "than the scrape interval; the annotations show them.",
        highest(members("defrag_in_progress")), MEMBER,
        _0=("no", "rgba(128, 128, 128, 0.25)"), _1=("defragmenting", "orange"),
    )),
    (8, 8, bars(
        "Time since the last defragmentation",
        "Is a member left out? "
        "For each member that defragd has defragmented.",
        "s",
        f"sort_desc({highest(since_last_defrag())})", MEMBER,
        no_value="no member yet", thresholds=steps("blue"),
    )),
    (8, 8, timeseries(
        "Reclaimed by the last defragmentation",
        "Was the last defragmentation worth it? "
        "What the last defragmentation of each member freed. If it stays near zero, the data is live: the problem is "
        "compaction or the quota, not fragmentation.",
        "bytes",
        query(top(members("last_defrag_reclaimed_bytes")), MEMBER),
    )),
    (8, 8, pairs(
        "Defragmentation: expected and actual",
        "Is the expected duration right? "
        "How long each member would be unavailable to its clients, from its size in use and "
        "the speed of the last defragmentations, beside how long the last one took. The default deadline is 10 minutes.",
        "s",
        ("expected", by_name("expected_defrag_seconds")),
        ("actual", by_name("last_defrag_duration_seconds")),
        no_value="no member yet",
    )),
]

HEALTH = [
    (6, 8, timeseries(
        "Probe duration",
        "Does a member answer slowly? "
        "How long each member took to answer, or to fail. A member that is defragmenting takes the whole timeout, "
        "because Status hangs.",
        "s",
        query(top(members("probe_duration_seconds")), MEMBER),
    )),
    (6, 8, timeseries(
        "Raft entries not applied",
        "Does a member lag? "
        "Entries that a member has in its log but not yet in its database. A member that lags is not defragmented.",
        "none",
        query(
            top("max by (etcd_cluster, member, member_id) "
                f"(defragd_member_raft_index{{{MEMBERS}}} - defragd_member_raft_applied_index{{{MEMBERS}}})"),
            MEMBER,
        ),
    )),
    (6, 8, timeseries(
        "Raft term",
        "Do leader elections disturb a cluster? "
        "Each step is a leader election. Steps during runs mean that the runs disturb the cluster.",
        "none",
        query(top(f"max by (etcd_cluster) (defragd_member_raft_term{{{MEMBERS}}})"), CLUSTER),
        low=None,
    )),
    (6, 8, timeseries(
        "Voters and learners",
        "Does a cluster have enough voters for a run? "
        "Members of each cluster by role. With fewer than three voters defragd refuses, unless the policy allows it.",
        "none",
        query(top(f"max by (etcd_cluster, role) (defragd_cluster_members{{{CLUSTERS}}})"), CLUSTER + " {{role}}"),
    )),
]

DASHBOARD = dashboard(
    "defragd-fragmentation",
    "etcd fragmentation (defragd)",
    "The members of the etcd clusters that defragd watches: fragmentation, sizes, defragmentations, health.",
    "now-6h",
    [CLUSTER_VARIABLE, MEMBER_VARIABLE, TOP_VARIABLE],
    ANNOTATIONS,
    [
        ("Each member", EACH),
        ("Database files", FILES),
        ("Defragmentations", DEFRAGMENTATIONS),
        ("Members' health", HEALTH),
    ],
)
