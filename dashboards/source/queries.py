"""Queries that several panels share, and the limits behind colours and lines.

The replicas of defragd that export the same cluster are merged with `max by`, so that nothing counts twice.
"""

from grafana import annotation, choice, steps, variable

CLUSTERS = 'etcd_cluster=~"$etcd_cluster"'
MEMBERS = CLUSTERS + ', member=~"$member"'
BY_MEMBER = "max by (etcd_cluster, member, member_id)"
# Names of series.
CLUSTER = "{{etcd_cluster}}"
MEMBER = "{{etcd_cluster}}/{{member}}"

# The default policy's limits, and those of the alerts.
RECLAIMABLE = 100 * 1024 * 1024
DEADLINE_SECONDS = 600
SHARE = steps("green", (0.45, "orange"), (0.7, "red"))
FULLNESS = steps("green", (0.8, "orange"), (0.9, "red"))
DAYS_LEFT = steps("red", (4, "orange"), (14, "green"))
BAD_FROM_1 = steps("green", (1, "red"))
ODD_FROM_1 = steps("green", (1, "orange"))
BUSY_FROM_1 = steps("green", (1, "blue"))


def members(metric, select=MEMBERS):
    """One series for each member."""
    return f"{BY_MEMBER} (defragd_member_{metric}{{{select}}})"


def clusters(metric):
    """One series for each cluster."""
    return f"max by (etcd_cluster) (defragd_cluster_{metric}{{{CLUSTERS}}})"


def worst(metric):
    """One series for each cluster: its member with the highest value."""
    return f"max by (etcd_cluster) (defragd_member_{metric}{{{CLUSTERS}}})"


def skew(metric):
    """One series for each cluster: its largest member less its smallest."""
    series = f"defragd_member_{metric}{{{MEMBERS}}}"
    return f"max by (etcd_cluster) ({series}) - min by (etcd_cluster) ({series})"


def increase(metric, by, window="$__rate_interval", select=CLUSTERS):
    """The increase of a counter that exists, at 0, from the start."""
    return f"sum by ({by}) (increase(defragd_{metric}{{{select}}}[{window}]))"


def appeared(metric, by, window="$__range", select=CLUSTERS):
    """The increase of a counter that exists only from its first event on: it counts from zero."""
    series = f"defragd_{metric}{{{select}}}"
    return f"sum by ({by}) (({series} unless {series} offset {window}) or increase({series}[{window}])) > 0"


def since_last_defrag(by="etcd_cluster, member, member_id", select=MEMBERS):
    """Seconds since defragd's last attempt."""
    return f"time() - (max by ({by}) (defragd_member_last_defrag_timestamp_seconds{{{select}}}) > 0)"


def top(expr):
    """The series of the most fragmented clusters, as many as the variable says: a graph of all is unreadable."""
    worst_now = f"max by (etcd_cluster) (defragd_member_fragmentation_ratio{{{CLUSTERS}}} @ end())"
    return f"{expr} and on (etcd_cluster) topk($top, {worst_now})"


def highest(expr):
    """The same by the values themselves: a cluster with an open breaker is not hidden by others that are fragmented."""
    return f"topk($top, {expr})"


def slope(window):
    """Bytes per second by which data in use grows, for each member; by linear regression."""
    return f"{BY_MEMBER} (deriv(defragd_member_db_size_in_use_bytes{{{MEMBERS}}}[{window}]))"


def days_to_full(window, enough):
    """Days until data in use fills the quota, on the member of each cluster where that is soonest.

    No value where nothing grows, and none for a member that was not measured `enough` ago yet.
    """
    room = f"clamp_min({members('db_quota_bytes')} - {members('db_size_in_use_bytes')}, 0)"
    known = f"{BY_MEMBER} (defragd_member_db_size_in_use_bytes{{{MEMBERS}}} offset {enough})"
    return f"min by (etcd_cluster) ({room} / ({slope(window)} > 0) and {known}) / 86400"


def by_name(metric):
    """A metric of members with one label, `name`, for the groups of `pairs`."""
    named = f'label_join({top(members(metric))}, "name", "/", "etcd_cluster", "member")'
    return f"max by (name) ({named})"


def mib_per_day(per_second):
    """As in `defragd report`."""
    return f"{per_second} * 86400 / 1048576"


# The variables, and the annotations of every graph.
CLUSTER_VARIABLE = variable(
    "etcd_cluster",
    "etcd cluster",
    "The clusters as defragd's configuration names them.",
    "label_values(defragd_cluster_up, etcd_cluster)",
)
TOP_VARIABLE = choice(
    "top",
    "Clusters in graphs",
    "How many clusters, members or gates a graph shows: of the most fragmented clusters, or with the most extreme values.",
    ["5", "10", "20", "50"],
)
MEMBER_VARIABLE = variable(
    "member",
    "Member",
    "The members of the chosen clusters.",
    f"label_values(defragd_member_up{{{CLUSTERS}}}, member)",
)
ANNOTATIONS = [
    annotation(
        "Rolling defragmentations",
        f"{clusters('run_active')} == 1",
        "Rolling defragmentation",
        CLUSTER,
        "etcd_cluster",
        "blue",
        step="15s",
    ),
    annotation(
        "Members defragmented",
        # Grafana expects milliseconds.
        "1000 * (max by (etcd_cluster, member) "
        f"(defragd_member_last_defrag_timestamp_seconds{{{CLUSTERS}}}) > 0)",
        "Defragmented",
        MEMBER,
        "etcd_cluster,member",
        "green",
        useValueForTime=True,
    ),
]
