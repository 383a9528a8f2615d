//! The table of all reasons: what each keeps from being done, who has to act, and what to do.

use super::{
    explain::{Kind, Severity},
    reason::Code,
};

impl Code {
    #[expect(clippy::too_many_lines, reason = "a table: one row for each code")]
    pub(super) const fn explained(self) -> (Kind, Severity, &'static str) {
        use Kind::{Ended, Failed, HeldBack, LeftOut, NotAccepted, Unsafe};
        use Severity::{Nothing, Operator, Passes};
        match self {
            Self::NotNeeded => (LeftOut, Nothing, "Nothing. To defragment earlier, lower the thresholds."),
            Self::Learner => (LeftOut, Nothing, "Nothing. Promote or remove a learner that stays a learner."),
            Self::AlreadyDone => (LeftOut, Nothing, "Nothing."),
            Self::NotRequested => (LeftOut, Nothing, "Nothing. Without `--member`, a run is about all members."),
            Self::LeaderSkipped => (
                LeftOut,
                Nothing,
                "Nothing. If the leader's file grows, set `leader` to `auto`, `last` or `last_after_transfer`.",
            ),
            Self::RuleNotMet => (LeftOut, Nothing, "Nothing. To defragment earlier, change `rule`."),
            Self::RuleFailed => (
                LeftOut,
                Operator,
                "Make the quota known (`metrics.url` or `quota` in the cluster's configuration), or do not use it in `rule`.",
            ),
            Self::NoGain => (
                LeftOut,
                Passes,
                "Nothing: defragd tries again when more is free. What remains is in pages that are partly in use; `etcdctl compact` may free some of them.",
            ),
            Self::NeedsOperator => (
                LeftOut,
                Operator,
                "Fix the failure that the reason names: most often, free space on the member's disk and restart the member. Then `defragd resume --cluster NAME`.",
            ),

            Self::UnknownMember => {
                (Unsafe, Operator, "Name the member as `defragd status` shows it: by its name or its id.")
            }
            Self::ClusterUnreachable => {
                (Unsafe, Operator, "Check that etcd runs, then the endpoints, the network and the certificates.")
            }
            Self::MemberUnreachable => {
                (Unsafe, Operator, "Bring the member back: see its log and its host. A run waits a few seconds for it.")
            }
            Self::ReadFailed => (
                Unsafe,
                Operator,
                "The member has no quorum: check its network and the other members (`defragd status`).",
            ),
            Self::Denied => (
                Unsafe,
                Operator,
                "Check the user and the password file with `etcdctl --user root user list`. defragd needs a user with the role root.",
            ),
            Self::WrongMember => (
                Unsafe,
                Operator,
                "Correct the member's `--advertise-client-urls`, or let the load balancer lead to this member only.",
            ),
            Self::NoLeader | Self::LeaderDisagreement => (
                Unsafe,
                Passes,
                "Wait for the election. If it lasts, look for lost members or a network partition: `defragd status`.",
            ),
            Self::NoQuorumSlack => (
                Unsafe,
                Operator,
                "Add voting members. To accept that the cluster stops while a member is being defragmented, pass `--allow-without-quorum-slack` or set `allow_without_quorum_slack: true`.",
            ),
            Self::AlarmsUnknown => {
                (Unsafe, Operator, "Check what `etcdctl alarm list` answers: the cluster does not serve it to defragd.")
            }
            Self::CorruptAlarm => (
                Unsafe,
                Operator,
                "Compare the members' data and replace the corrupt member before anything else. Do not disarm the alarm first.",
            ),
            Self::DefragInFlight => (Unsafe, Passes, "Wait until the defragmentation ends: `defragd status` shows it."),
            Self::DefragUnknown => (
                Unsafe,
                Operator,
                "Let defragd read the member's whole metrics page, or set `metrics.url` to its address.",
            ),
            Self::StallExceedsProbe => (
                Unsafe,
                Operator,
                "Delete keys and compact, which makes the defragmentation shorter. Or raise the liveness probe's `failureThreshold` and then `liveness_budget`; for a limit of the policy, raise `max_expected_stall`.",
            ),
            Self::LeaderFirst => {
                (Unsafe, Nothing, "Nothing, if it is intended. Without `--member`, a run defragments the leader last.")
            }
            Self::SnapshotOpen => (
                Unsafe,
                Passes,
                "Wait for the backup; end it if it hangs. With `on_open_snapshot: ignore` defragd does not wait, and the member serves no client until the snapshot ends.",
            ),
            Self::RaftLag => {
                (Unsafe, Passes, "Wait for the member to catch up. If it does not, check its disk and its network.")
            }
            Self::DangerousVersion => (Unsafe, Operator, "Upgrade etcd on this member."),
            Self::UpgradeInProgress => (
                Unsafe,
                Operator,
                "Finish the upgrade or the downgrade; `etcdctl downgrade cancel` withdraws a downgrade. Under NOSPACE defragd does not wait for it.",
            ),
            Self::MembershipChanged => (Unsafe, Passes, "Let the change finish. defragd tries again by itself."),
            Self::ClusterChanged => {
                (Unsafe, Operator, "The endpoints lead to another cluster: correct them in the configuration.")
            }
            Self::SameCluster => (Unsafe, Operator, "Remove one of the two entries from the configuration."),
            Self::NoLongerNext => {
                (Unsafe, Passes, "Nothing. If it comes often, leadership keeps moving: check the members' disks.")
            }
            Self::StaleObservation => (
                Unsafe,
                Passes,
                "Nothing. If it comes often, the process is stopped or gets too little processor time: give it more.",
            ),
            Self::GateFailed => {
                (Unsafe, Operator, "Fix what the gate found, then check all gates again with `defragd gates`.")
            }

            Self::DefragFailed => {
                (Failed, Operator, "Read the member's log, then see what is left with `defragd plan`.")
            }
            Self::DiskFull => (
                Failed,
                Operator,
                "Free space on the disk of the member's data directory, then restart the member: its temporary file stays until then. Then `defragd resume --cluster NAME`.",
            ),
            Self::DeadlineExceeded => {
                (Failed, Operator, "The member has recovered. Raise `defrag_deadline`, or check the member's disk.")
            }
            Self::ConnectionLost => (
                Failed,
                Operator,
                "Check whether the member restarted (its log), and the network and the proxies to it.",
            ),
            Self::NotRecovered => {
                (Failed, Operator, "Bring the cluster back to health: `defragd status` shows what is wrong.")
            }
            Self::JournalFailed => (
                Failed,
                Operator,
                "Free space in `--data-dir` and make it writable. If the file is damaged, stop defragd and move it away: a new one is started.",
            ),
            Self::TransferFailed => {
                (Failed, Operator, "Check the voting members (`defragd status`) and the leader's log.")
            }
            Self::NoTransferTarget => (
                Failed,
                Operator,
                "Bring a voting member to health and defragment it first. With `leader: auto` or `leader: last` the leader is defragmented as the leader.",
            ),
            Self::CompactionFailed => (
                Failed,
                Operator,
                "Read the leader's log. Without `compaction` in the policy, defragd does not compact.",
            ),
            Self::StillNearQuota => (
                Failed,
                Operator,
                "Delete keys, compact and defragment again; or raise `--quota-backend-bytes` on every member.",
            ),
            Self::QuotaUnknown => (
                Failed,
                Operator,
                "Set `metrics.url` or `quota` in the cluster's configuration. Or check that the member is below its quota, then `etcdctl alarm disarm`.",
            ),
            Self::DisarmFailed => (Failed, Operator, "See `etcdctl alarm list`, then `etcdctl alarm disarm`."),
            Self::NoSpaceAgain => {
                (Failed, Operator, "Delete keys and compact, or raise `--quota-backend-bytes` on every member.")
            }
            Self::HashMismatch => (
                Failed,
                Operator,
                "Disarm no alarm. Take a snapshot of each member now, compare them, and replace the member that differs. Then `defragd resume --cluster NAME`.",
            ),

            Self::UnknownCluster => {
                (NotAccepted, Operator, "Compare the alert's labels with `match` of the configured clusters.")
            }
            Self::Removed => (NotAccepted, Nothing, "Nothing, or put the cluster back into the configuration."),
            Self::AmbiguousCluster => (
                NotAccepted,
                Operator,
                "Change the clusters' `match` so that the alert's labels match one of them only.",
            ),
            Self::OtherShard => (NotAccepted, Nothing, "Nothing: that shard serves the cluster."),
            Self::DuplicateAlert => (NotAccepted, Nothing, "Nothing."),
            Self::AlreadyRequested => (NotAccepted, Nothing, "Nothing: one run serves all requests of the cluster."),
            Self::AnotherRunWaits => (
                NotAccepted,
                Operator,
                "`defragd run --cluster NAME`, without `--member`, starts the waiting run, unless it is an operator's already. To replace it: `defragd cancel --cluster NAME`, then the same command again.",
            ),
            Self::Served => (
                HeldBack,
                Passes,
                "Nothing, if the run did its work: the alert ends when Prometheus measures again. Otherwise see `defragd runs`; `defragd run` does not wait for the notification.",
            ),
            Self::LockHeldElsewhere => {
                (NotAccepted, Nothing, "Nothing: the replica that holds the lock serves the request.")
            }
            Self::NotForwarded => (
                NotAccepted,
                Operator,
                "For 401 or 403, put the other replica's token into `lock.token_file`; for 404, configure the same clusters on all replicas. defragd tries again within a minute.",
            ),

            Self::Cooldown => (
                HeldBack,
                Passes,
                "Nothing: the request waits; under NOSPACE or with a nearly full quota it does not. An operator's run starts at once: `defragd run --cluster NAME`.",
            ),
            Self::RetryPending => (
                HeldBack,
                Passes,
                "Fix the cause, which `defragd runs` shows. defragd tries again by itself. An operator's run starts at once: `defragd run --cluster NAME`.",
            ),
            Self::Paused => (
                HeldBack,
                Operator,
                "`defragd resume --cluster NAME`, or wait until the pause ends: it holds runs under NOSPACE, too.",
            ),
            Self::OutsideWindow => (
                HeldBack,
                Passes,
                "Wait for the window. Under NOSPACE or with a nearly full quota a run starts at once, unless the policy says `emergency: false`.",
            ),
            Self::DailyLimit => (
                HeldBack,
                Passes,
                "Find out what fragments the cluster so fast. The request waits. An operator's run starts at once: `defragd run --cluster NAME`.",
            ),
            Self::BreakerOpen => (
                HeldBack,
                Operator,
                "See what failed with `defragd runs`, fix it, then `defragd resume --cluster NAME`.",
            ),
            Self::AwaitingApproval => (
                HeldBack,
                Operator,
                "Check `defragd plan`, then `defragd approve RUN` or `defragd reject RUN --reason TEXT` with the run's number, or decide on the status page.",
            ),
            Self::TooManyRuns => {
                (HeldBack, Passes, "Wait for the runs of other clusters, or raise `--max-concurrent-runs`.")
            }
            Self::LockUnknown => {
                (HeldBack, Operator, "Check where the lock is stored: its endpoints, network, credentials and disk.")
            }
            Self::LockSettling => (
                HeldBack,
                Passes,
                "Nothing: 30 s after it acquired the lock, the replica starts runs. The wait is fixed: a request of the last holder may be in flight for 25 s.",
            ),

            Self::Resolved => (Ended, Nothing, "Nothing."),
            Self::Cancelled => (
                Ended,
                Nothing,
                "Nothing. An alert that still fires requests a new run with its next notification; `defragd pause --cluster NAME` keeps it waiting.",
            ),
            Self::Rejected => (
                Ended,
                Nothing,
                "Nothing. If the cluster is to be defragmented after all, `defragd run --cluster NAME`. To hold off all runs for longer, `defragd pause --cluster NAME`.",
            ),
            Self::WindowClosed => (
                Ended,
                Passes,
                "Nothing: the next window is used for the rest. If a window is too short, make it longer.",
            ),
            Self::ApprovalExpired => (Ended, Passes, "Nothing: the next notification requests a run again."),
            Self::Forwarded => {
                (Ended, Nothing, "Nothing: `defragd runs` on the replica that the reason names shows the run.")
            }
            Self::LockLost => (
                Ended,
                Passes,
                "Nothing: the new holder continues. If it comes often, raise `lock.ttl`, or check the network and where the lock is stored.",
            ),
            Self::ShuttingDown => (Ended, Passes, "Nothing: the next start does the rest."),
            Self::OperatorStop => (Ended, Nothing, "`defragd run` again when you are ready."),
            Self::ProcessEnded => {
                (Ended, Operator, "Read the log of the process that ended; `defragd plan` shows what is left to do.")
            }
            Self::ObserveMode => (
                Ended,
                Nothing,
                "To defragment, set `mode: enforce` and reload, or `defragd run --mode enforce`, with a `--data-dir` that no server uses.",
            ),
            Self::InternalError => (Ended, Operator, "Report it to the developers of defragd, with the journal."),
        }
    }
}
