"""What defragd does and why: runs, decisions, gates, holds, the webhook."""

from grafana import bars, dashboard, query, states, steps, table, timeseries
from queries import (
    ANNOTATIONS, CLUSTER, CLUSTER_VARIABLE, CLUSTERS, DEADLINE_SECONDS, MEMBER, TOP_VARIABLE, appeared, clusters,
    highest, increase, members, top,
)

GRAY = "rgba(128, 128, 128, 0.25)"
OUTCOMES = {
    "failed": "red",
    "mismatched": "dark-red",
    "interrupted": "orange",
    "refused": "yellow",
    "stopped": "yellow",
    "observed": "blue",
    "nothing_to_do": "text",
}
RUNS = [
    (8, 8, bars(
        "Runs by outcome",
        "Do runs succeed? "
        "Runs that ended in the selected time range. refused: nothing was touched; stopped: by an operator or a window; "
        "interrupted: defragd stopped in the middle; mismatched: the members hold different data; observed: mode observe, "
        "nothing was changed.",
        "none",
        increase("runs_total", "outcome", "$__range"), "{{outcome}}",
        colors=OUTCOMES, decimals=0,
    )),
    (8, 8, bars(
        "Runs by trigger",
        "What requests the runs? "
        "Runs that ended in the selected time range. retry: a run that had been refused and was tried again.",
        "none",
        increase("runs_total", "trigger", "$__range"), "{{trigger}}", decimals=0,
    )),
    (8, 8, bars(
        "Members by result",
        "Do members' defragmentations succeed? "
        "Attempts on single members that ended in the selected time range. no_gain: the file did not get smaller, the "
        "member is left alone until more is free; unconfirmed: the result is unknown; not_sent: it never began.",
        "none",
        increase("member_defrags_total", "result", "$__range"), "{{result}}",
        colors={"failed": "red", "unconfirmed": "orange", "no_gain": "yellow", "not_sent": "text"}, decimals=0,
    )),
    (12, 8, timeseries(
        "Runs over time",
        "When did runs end, and how? "
        "Runs by outcome. Each bar covers the interval before it.",
        "none",
        query(increase("runs_total", "outcome"), "{{outcome}}"),
        bars=True,
    )),
    (12, 8, bars(
        "Mean duration of runs",
        "How long does a run take? "
        "How long a run takes, from start to end including the pauses between members: the mean of the runs that ended "
        "in the selected time range, per cluster.",
        "s",
        "sort_desc(" + highest(
            f"{increase('run_duration_seconds_sum', 'etcd_cluster', '$__range')} / "
            f"({increase('run_duration_seconds_count', 'etcd_cluster', '$__range')} > 0)"
        ) + ")",
        CLUSTER,
        no_value="no run in this time range", thresholds=steps("blue"),
    )),
    (12, 8, bars(
        "Duration of the last defragmentation",
        "How long are members unavailable? "
        "How long the members with the longest last defragmentation were unavailable to their clients. Red: longer than "
        "the default deadline of 10 minutes.",
        "s",
        f"sort_desc({highest(members('last_defrag_duration_seconds', CLUSTERS))})", MEMBER,
        no_value="no member yet", thresholds=steps("blue", (DEADLINE_SECONDS, "red")),
    )),
    (12, 8, timeseries(
        "Bytes reclaimed",
        "When did runs free space, and how much? "
        "What the defragmentations freed, per cluster. Each bar covers the interval before it.",
        "bytes",
        query(top(increase("reclaimed_bytes_total", "etcd_cluster")), CLUSTER),
        bars=True,
    )),
]

DECISIONS = [
    (24, 10, bars(
        "Decisions and their reasons",
        "Why did defragd act, or not? "
        "Why defragd started, skipped, refused, ignored or stopped something, or waited, in the selected time range. "
        "`defragd plan` shows the current reasons, member by member.",
        "none",
        f"sort_desc({appeared('decisions_total', 'decision, reason')})", "{{decision}}: {{reason}}",
        no_value="none in this time range", decimals=0,
    )),
]

HOLDS = [
    (12, 6, states(
        "Run under way",
        "When was a run under way? "
        "At most one in each cluster.",
        highest(clusters("run_active")), CLUSTER, _0=("no", GRAY), _1=("under way", "blue"),
    )),
    (12, 6, states(
        "Defragmentation in progress",
        "Which member is being defragmented? "
        "Which member is defragmenting: never two of one cluster at a time. The graph can miss defragmentations shorter "
        "than the scrape interval; the annotations show them.",
        highest(members("defrag_in_progress", CLUSTERS)), MEMBER, _0=("no", GRAY), _1=("defragmenting", "orange"),
    )),
    (12, 6, states(
        "Breaker",
        "Has defragd stopped after failures? "
        "Open after too many failed runs in a row: no run starts in that cluster until an operator runs "
        "`defragd resume`.",
        highest(clusters("breaker_open")), CLUSTER, _0=("closed", GRAY), _1=("open", "red"),
    )),
    (12, 6, states(
        "Paused",
        "Has an operator paused defragd? "
        "By an operator, with a reason: `defragd runs` and the status page show it.",
        highest(clusters("paused")), CLUSTER, _0=("no", GRAY), _1=("paused", "orange"),
    )),
    (12, 7, timeseries(
        "Requests waiting",
        "Do requests wait? "
        "Accepted requests that have not started a run yet, per cluster.",
        "none",
        query(highest(f"max by (etcd_cluster) (defragd_queue_depth{{{CLUSTERS}}})"), CLUSTER),
    )),
    (12, 7, table(
        "Next maintenance window",
        "When may the next run start? "
        "When the next window of each cluster opens. Clusters without windows are not listed: runs may always start.",
        [
            ("etcd_cluster", "Cluster", {}),
            ("Opens in", f"{clusters('next_window_timestamp_seconds')} - time()", {"unit": "s", "decimals": 1}),
        ],
        no_value="no windows",
    )),
    (12, 7, table(
        "Next scheduled request",
        "When is the next run due? "
        "When the schedule of each cluster next requests a run. Clusters without a schedule are not listed.",
        [
            ("etcd_cluster", "Cluster", {}),
            ("Due in", f"{clusters('next_scheduled_timestamp_seconds')} - time()", {"unit": "s", "decimals": 1}),
        ],
        no_value="no schedules",
    )),
]

GATES = [
    (8, 7, states(
        "Last result of each gate",
        "Which gate blocks runs? "
        "The result of each gate's last check: before a run, between the members, or at its end.",
        f"bottomk($top, max by (etcd_cluster, gate) (defragd_gate_passed{{{CLUSTERS}}}))", "{{etcd_cluster}}: {{gate}}",
        _0=("failed", "red"), _1=("passed", "green"),
    )),
    (8, 7, bars(
        "Gate checks",
        "How often do gates block runs? "
        "Checks of gates in the selected time range. failed: the run was refused or stopped; warned: it continued, "
        "because the gate only warns.",
        "none",
        f"sort_desc({appeared('gate_checks_total', 'gate, moment, result')})", "{{gate}} {{moment}}: {{result}}",
        no_value="none in this time range", decimals=0,
    )),
    (8, 7, timeseries(
        "Duration of gate checks",
        "Do gates delay runs? "
        "How long the last check of each gate took. The run waits for it.",
        "s",
        query(
            highest(f"max by (etcd_cluster, gate) (defragd_gate_duration_seconds{{{CLUSTERS}}})"),
            "{{etcd_cluster}}: {{gate}}",
        ),
    )),
]

# The webhook's counters have no label for the cluster: an ignored alert may belong to none.
WEBHOOK = [
    (8, 8, timeseries(
        "Webhook requests by status code",
        "Do alerts arrive? "
        "The HTTP responses to Alertmanager. 401 is a wrong token, 503 a journal that cannot be written; Alertmanager "
        "retries only the latter.",
        "none",
        query(increase("webhook_requests_total", "code", select=""), "{{code}}"),
        bars=True,
    )),
    (8, 8, timeseries(
        "Webhook alerts by decision",
        "Do alerts lead to requests? "
        "What defragd did with the alerts that Alertmanager sent: accepted as a request, a duplicate of one, or ignored. "
        "All clusters: an ignored alert may belong to none.",
        "none",
        query(increase("webhook_alerts_total", "decision", select=""), "{{decision}}"),
        bars=True,
    )),
    (8, 8, bars(
        "Webhook alerts and their reasons",
        "Why were alerts accepted or ignored? "
        "The same in the selected time range, with the reasons.",
        "none",
        f"sort_desc({appeared('webhook_alerts_total', 'decision, reason', select='')})", "{{decision}}: {{reason}}",
        no_value="none in this time range", decimals=0,
    )),
]

DASHBOARD = dashboard(
    "defragd-remediation",
    "etcd remediation (defragd)",
    "What defragd does about fragmented etcd clusters: runs, decisions and their reasons, gates, webhook.",
    "now-7d",
    [CLUSTER_VARIABLE, TOP_VARIABLE],
    ANNOTATIONS,
    [
        ("Runs", RUNS),
        ("Decisions", DECISIONS),
        ("What holds it back", HOLDS),
        ("Gates", GATES),
        ("Webhook", WEBHOOK),
    ],
)
