"""How the data grows, over months."""

from grafana import bars, dashboard, now, override, query, stat, states, steps, timeseries
from queries import (
    ANNOTATIONS, CLUSTER, CLUSTER_VARIABLE, CLUSTERS, DAYS_LEFT, FULLNESS, MEMBER, MEMBER_VARIABLE, MEMBERS,
    TOP_VARIABLE, days_to_full, highest, increase, members, mib_per_day, since_last_defrag, skew, slope, top,
)

SUCCEEDED = CLUSTERS + ', outcome="succeeded"'
GUARDS = "No value where data does not grow, where the quota is not known, and "
PRESENT = [
    (6, 4, stat(
        "Days to a full quota, by the last day",
        "How many days are left if growth continues as in the last day? "
        "How long until data in use fills the quota at the rate of the last day, in the cluster where that is "
        "soonest. " + GUARDS + "in the first 18 hours of a member.",
        "d",
        now(f"min({days_to_full('1d', '18h')})"),
        thresholds=DAYS_LEFT, decimals=1, no_value="not growing",
    )),
    (6, 4, stat(
        "Days to a full quota, by the last week",
        "How many days are left if growth continues as in the last week? "
        "As on the left, at the rate of the last 7 days. " + GUARDS + "in the first 5 days of a member.",
        "d",
        now(f"min({days_to_full('7d', '5d')})"),
        thresholds=DAYS_LEFT, decimals=1, no_value="not growing",
    )),
    (6, 4, stat(
        "Highest quota usage",
        "Is a file near its quota? "
        "Database size over quota, of the fullest member. At 100 % its cluster stops taking writes.",
        "percentunit",
        now(f"max(defragd_member_quota_usage_ratio{{{MEMBERS}}})"),
        thresholds=FULLNESS, decimals=1,
    )),
    (6, 4, stat(
        "Highest share of the quota in use",
        "Is a quota too small, however often members are defragmented? "
        "Data in use over quota, of the fullest member: what no defragmentation frees.",
        "percentunit",
        now(f"max({members('db_size_in_use_bytes')} / {members('db_quota_bytes')})"),
        thresholds=FULLNESS, decimals=1,
    )),
]

SIZES = [
    (24, 10, timeseries(
        "Database size, in use and quota",
        "How do sizes and quota develop? "
        "The file's size (what the quota counts), the part of it in use (what a defragmentation leaves), and the quota "
        "(dashed). The gap between the first two is what can be reclaimed.",
        "bytes",
        query(top(members("db_size_bytes")), MEMBER + " size"),
        query(top(members("db_size_in_use_bytes")), MEMBER + " in use"),
        query(top(f"min by (etcd_cluster) (defragd_member_db_quota_bytes{{{MEMBERS}}} > 0)"), CLUSTER + " quota"),
        overrides=[override("C", by="byFrameRefID", **{
            "custom.lineStyle": {"dash": [10, 10], "fill": "dash"}, "custom.lineWidth": 2,
        })],
    )),
    (12, 8, timeseries(
        "Reclaimable",
        "How much would a defragmentation of each member return? "
        "Size minus data in use of each member.",
        "bytes",
        query(top(members("db_reclaimable_bytes")), MEMBER),
    )),
    (12, 8, timeseries(
        "Quota usage",
        "How near is each file to its quota? "
        "Database size over quota of each member. The lines: at 80 % an alert requests a run, at 90 % one is critical.",
        "percentunit",
        query(top(members("quota_usage_ratio")), MEMBER),
        thresholds=steps("transparent", (0.8, "orange"), (0.9, "red")),
        high=1,
    )),
]

GROWTH = [
    (12, 8, timeseries(
        "Growth of data in use, over 1 day",
        "Did growth change lately? "
        "How fast data in use grows per day, by linear regression over the last day. Below 0 it shrinks. Free space in "
        "the file does not count.",
        "suffix: MiB/day",
        query(top(mib_per_day(slope("1d"))), MEMBER),
        low=None,
    )),
    (12, 8, timeseries(
        "Growth of data in use, over 7 days",
        "How fast does data grow in the long run? "
        "The same over a week, which evens out days and nights.",
        "suffix: MiB/day",
        query(top(mib_per_day(slope("7d"))), MEMBER),
        low=None,
    )),
    (12, 8, timeseries(
        "Days to a full quota",
        "Which quotas are full first, and when? "
        "How long until data in use fills the quota at the rate of the last day and of the last week, for the member of "
        "each cluster that is full first, in the clusters where that is soonest. " + GUARDS
        + "before three quarters of the window have data. "
        "EtcdQuotaExhaustionPredicted fires if both the last day's and the last 6 hours' value are below the line.",
        "d",
        query(f"bottomk($top, {days_to_full('1d', '18h')})", CLUSTER + " by 1 day"),
        query(f"bottomk($top, {days_to_full('7d', '5d')})", CLUSTER + " by 7 days"),
        thresholds=steps("red", (4, "transparent")),
    )),
    (12, 8, timeseries(
        "Members' skew",
        "Do the members of a cluster differ in size? "
        "The largest member of a cluster minus its smallest. Sizes differ until all are defragmented. Data in use "
        "should hardly differ: if it does, a member lags, or compaction has not finished on it.",
        "bytes",
        query(top(f"({skew('db_size_bytes')})"), CLUSTER + " size"),
        query(top(f"({skew('db_size_in_use_bytes')})"), CLUSTER + " in use"),
    )),
]

DEFRAGMENTATIONS = [
    (8, 8, timeseries(
        "Bytes reclaimed",
        "When did runs free space, and how much? "
        "What the defragmentations freed, per cluster. Each bar covers the interval before it.",
        "bytes",
        query(top(increase("reclaimed_bytes_total", "etcd_cluster")), CLUSTER),
        bars=True,
    )),
    (8, 8, bars(
        "Bytes reclaimed per run",
        "Is a run still worth it? "
        "What one successful run freed on average, all members of a cluster together, in the selected time range. If "
        "it falls from month to month, the runs are too frequent.",
        "bytes",
        highest(
            f"{increase('reclaimed_bytes_total', 'etcd_cluster', '$__range')} / "
            f"({increase('runs_total', 'etcd_cluster', '$__range', SUCCEEDED)} > 0)"
        ),
        CLUSTER,
        no_value="no run in this time range",
    )),
    (8, 8, bars(
        "Time since the last defragmentation",
        "Is a member left out? "
        "For each member that defragd has defragmented.",
        "s",
        f"sort_desc({highest(since_last_defrag())})", MEMBER,
        no_value="no member yet", thresholds=steps("blue"),
    )),
    (24, 7, states(
        "Leader",
        "Is leadership stable? "
        "Which member is the leader. Leadership that changes without a run suggests slow disks or a bad network.",
        top(members("is_leader")), MEMBER,
        _0=("follower", "rgba(128, 128, 128, 0.25)"), _1=("leader", "blue"),
    )),
]

DASHBOARD = dashboard(
    "defragd-capacity",
    "etcd capacity (defragd)",
    "How the etcd clusters that defragd watches grow, and how long their quotas last.",
    "now-30d",
    [CLUSTER_VARIABLE, MEMBER_VARIABLE, TOP_VARIABLE],
    ANNOTATIONS,
    [
        ("Now", PRESENT),
        ("Sizes", SIZES),
        ("Growth", GROWTH),
        ("Effect of defragmentations", DEFRAGMENTATIONS),
    ],
)
