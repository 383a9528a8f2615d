"""All clusters on one page: is anything wrong, and where."""

from grafana import dashboard, now, query, stat, table, timeseries, words
from queries import (
    ANNOTATIONS, BAD_FROM_1, BUSY_FROM_1, CLUSTER, CLUSTER_VARIABLE, CLUSTERS, FULLNESS, ODD_FROM_1, SHARE,
    TOP_VARIABLE, clusters, members, since_last_defrag, worst,
)

PRESENT = [
    (4, 4, stat(
        "Clusters reached",
        "Does defragd reach all clusters? "
        "Clusters of which at least one member answers defragd, out of all configured clusters.",
        "none",
        now(f"sum({clusters('up')})", "reached"),
        now(f"count({clusters('up')})", "of"),
    )),
    (4, 4, stat(
        "Members up",
        "Are all members up? "
        "Members that answer Status, out of all known. A member that is being defragmented does not answer.",
        "none",
        now(f"sum({members('up', CLUSTERS)})", "up"),
        now(f"count({members('up', CLUSTERS)})", "of"),
    )),
    (4, 4, stat(
        "Alarms raised",
        "Does an alarm block writes? "
        "Armed NOSPACE and CORRUPT alarms, counted per member. With either of them a cluster refuses writes.",
        "none",
        now(f"sum(max by (etcd_cluster, member, member_id, alarm) (defragd_member_alarm{{{CLUSTERS}}}))"),
        thresholds=BAD_FROM_1,
    )),
    (4, 4, stat(
        "Clusters without a leader",
        "Has each cluster a leader? "
        "Clusters that can be reached but have no leader: no writes, and no defragmentation either.",
        "none",
        now(f"count({clusters('has_leader')} == 0) or vector(0)"),
        thresholds=BAD_FROM_1,
    )),
    (4, 4, stat(
        "Breakers open",
        "Has defragd stopped after failures? "
        "Clusters in which so many runs failed in a row that defragd starts no more until an operator runs "
        "`defragd resume`.",
        "none",
        now(f"sum({clusters('breaker_open')})"),
        thresholds=BAD_FROM_1,
    )),
    (4, 4, stat(
        "Clusters paused",
        "Has an operator paused defragd? "
        "Clusters that an operator has paused. A pause ends at its time, or with `defragd resume`.",
        "none",
        now(f"sum({clusters('paused')})"),
        thresholds=ODD_FROM_1,
    )),
    (4, 4, stat(
        "Worst fragmentation",
        "Does a member need a defragmentation? "
        "The highest share of free space in any member's database file (1 - in use / size). From 45 % on, and with "
        "100 MiB or more to reclaim, defragd's default policy acts.",
        "percentunit",
        now(f"max(defragd_member_fragmentation_ratio{{{CLUSTERS}}})"),
        thresholds=SHARE,
        decimals=1,
    )),
    (4, 4, stat(
        "Reclaimable",
        "How much space would defragmentations return? "
        "What defragmenting every member would return to the file systems, all members together.",
        "bytes",
        now(f"sum({members('db_reclaimable_bytes', CLUSTERS)})"),
        decimals=1,
    )),
    (4, 4, stat(
        "Highest quota usage",
        "Is a file near its quota? "
        "Database size over quota, of the fullest member. At 100 % its cluster stops taking writes.",
        "percentunit",
        now(f"max(defragd_member_quota_usage_ratio{{{CLUSTERS}}})"),
        thresholds=FULLNESS,
        decimals=1,
    )),
    (4, 4, stat(
        "Runs under way",
        "Is defragd working now? "
        "Rolling defragmentations under way; at most one in each cluster.",
        "none",
        now(f"sum({clusters('run_active')})"),
        thresholds=BUSY_FROM_1,
    )),
    (4, 4, stat(
        "Requests waiting",
        "Does a request wait? "
        "Accepted requests that wait for a window, an approval, or another cluster's run.",
        "none",
        now(f"sum(max by (etcd_cluster) (defragd_queue_depth{{{CLUSTERS}}}))"),
        thresholds=BUSY_FROM_1,
    )),
    (4, 4, stat(
        "Members being defragmented",
        "Is a member unavailable because it is being defragmented? "
        "Members that are being defragmented, by defragd or another tool: they serve no clients meanwhile.",
        "none",
        now(f"sum({members('defrag_in_progress', CLUSTERS)})"),
        thresholds=BUSY_FROM_1,
    )),
]


TO_MEMBERS = [{
    "title": "Its members",
    "url": "/d/defragd-fragmentation?var-etcd_cluster=${__value.raw}&${datasource:queryparam}&${__url_time_range}",
}]


def problem(expr, text):
    """The clusters for which the expression has a value, with the label `problem`."""
    return f'label_replace(max by (etcd_cluster) ({expr}), "problem", "{text}", "", "")'


# The most urgent first; a cluster has a line for each of its problems.
PROBLEMS = [
    problem(f"{clusters('up')} == 0", "unreachable"),
    problem(f"{clusters('has_leader')} == 0 and {clusters('up')} == 1", "no leader"),
    problem(f'defragd_member_alarm{{{CLUSTERS}, alarm="CORRUPT"}} == 1', "alarm CORRUPT"),
    problem(f'defragd_member_alarm{{{CLUSTERS}, alarm="NOSPACE"}} == 1', "alarm NOSPACE"),
    problem(f"{worst('quota_usage_ratio')} > 0.9", "near the quota"),
    # A member does not answer while it is defragmented.
    problem(
        f"{members('up', CLUSTERS)} == 0 unless {members('defrag_in_progress', CLUSTERS)} == 1", "a member is down",
    ),
    problem(f"{clusters('breaker_open')} == 1", "breaker open"),
    problem(f"{clusters('paused')} == 1", "paused"),
    problem(f"{worst('fragmentation_ratio')} > 0.45", "fragmented"),
]
WRONG = [
    (10, 8, table(
        "Clusters with a problem",
        "Which clusters need attention now, and why? One line for each problem; empty if there is none.",
        [
            ("etcd_cluster", "Cluster", {"links": TO_MEMBERS}),
            ("problem", "Problem", {}),
            (None, " or ".join(PROBLEMS), {}),
        ],
        no_value="none",
    )),
    (14, 8, table(
        "Firing alerts",
        "Which alerts fire now? "
        "The alerts of alerts/defragd.rules.yml that fire now. What each means and what to do: alerts/runbooks.md.",
        [
            ("alertname", "Alert", {}),
            ("etcd_cluster", "Cluster", {}),
            ("member", "Member", {}),
            ("severity", "Severity", {}),
            (None, "max by (alertname, etcd_cluster, member, severity) "
                   f'(ALERTS{{alertname=~"(Etcd|Defragd).+", alertstate="firing", {CLUSTERS}}})', {}),
        ],
        no_value="none",
    )),
]

GAUGE = {"type": "gauge", "mode": "basic"}
BYTES = {"unit": "bytes", "decimals": 1}
EACH = [
    (24, 9, table(
        "Clusters",
        "How is each cluster? "
        "Each cluster now, by its worst member. The name links to the cluster's members.",
        [
            ("etcd_cluster", "Cluster", {"links": TO_MEMBERS}),
            ("Reached", clusters("up"), words(_0=("no", "red"), _1=("yes", "green"))),
            ("Leader", clusters("has_leader"), words(_0=("none", "red"), _1=("yes", "green"))),
            ("Voters", f'max by (etcd_cluster) (defragd_cluster_members{{{CLUSTERS}, role="voter"}})', {}),
            ("Size", worst("db_size_bytes"), BYTES),
            ("In use", worst("db_size_in_use_bytes"), BYTES),
            ("Reclaimable", worst("db_reclaimable_bytes"), BYTES),
            ("Fragmentation", worst("fragmentation_ratio"), {
                "unit": "percentunit", "decimals": 1, "min": 0, "max": 1, "thresholds": SHARE,
                "custom.cellOptions": GAUGE,
            }),
            ("Quota used", worst("quota_usage_ratio"), {
                "unit": "percentunit", "decimals": 1, "min": 0, "max": 1, "thresholds": FULLNESS,
                "custom.cellOptions": GAUGE,
            }),
            ("Run", clusters("run_active"), words(_0=("", "text"), _1=("under way", "blue"))),
            ("Breaker", clusters("breaker_open"), words(_0=("", "text"), _1=("open", "red"))),
            ("Paused", clusters("paused"), words(_0=("", "text"), _1=("paused", "orange"))),
            ("Since last defrag", since_last_defrag("etcd_cluster", CLUSTERS), {
                "unit": "s", "decimals": 1, "noValue": "-",
            }),
        ],
        sort="Fragmentation",
    )),
]

OVER_TIME = [
    (12, 8, timeseries(
        "Fragmentation, the worst clusters",
        "Where does fragmentation grow? "
        "The free share of the most fragmented member's database file.",
        "percentunit",
        query(f"topk($top, {worst('fragmentation_ratio')})", CLUSTER),
        thresholds=SHARE,
        high=1,
    )),
    (12, 8, timeseries(
        "Quota usage, the fullest clusters",
        "Where do files approach their quota? "
        "Database size over quota of the fullest member. From 80 % on an alert requests a run, from 90 % on an alert "
        "is critical.",
        "percentunit",
        query(f"topk($top, {worst('quota_usage_ratio')})", CLUSTER),
        thresholds=FULLNESS,
        high=1,
    )),
]

ITSELF = [
    (6, 7, timeseries(
        "Duration of a scrape",
        "Are scrapes of defragd fast enough? "
        "How long Prometheus waited for each defragd, which queries all members at once. With a member that hangs it "
        "takes as long as the scrape's timeout allows.",
        "s",
        query('scrape_duration_seconds{job="defragd"}', "{{instance}}"),
    )),
    (6, 7, timeseries(
        "Memory of defragd",
        "Does defragd's memory stay the same? "
        "Resident memory of each defragd.",
        "bytes",
        query('process_resident_memory_bytes{job="defragd"}', "{{instance}}"),
    )),
    (6, 7, timeseries(
        "CPU of defragd",
        "How much CPU does defragd use? "
        "CPU seconds per second of each defragd.",
        "none",
        query('rate(process_cpu_seconds_total{job="defragd"}[$__rate_interval])', "{{instance}}"),
    )),
    (6, 7, table(
        "Versions of defragd",
        "Do all replicas have the same version? "
        "Each running defragd with its version and revision.",
        [
            ("instance", "Instance", {}),
            ("version", "Version", {}),
            ("revision", "Revision", {}),
            (None, "max by (instance, version, revision) (defragd_build_info)", {}),
        ],
    )),
]

DASHBOARD = dashboard(
    "defragd-fleet",
    "etcd fleet (defragd)",
    "All etcd clusters that defragd watches: which need attention, which have a run under way, which alerts fire.",
    "now-6h",
    [CLUSTER_VARIABLE, TOP_VARIABLE],
    ANNOTATIONS,
    [
        ("What is wrong", WRONG),
        ("Now", PRESENT),
        ("Each cluster", EACH),
        ("The worst over time", OVER_TIME),
        ("defragd itself", ITSELF),
    ],
)
