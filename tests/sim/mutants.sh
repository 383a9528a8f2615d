#!/bin/bash
# Puts deliberate faults into a scratch copy of src, one after the other, and checks that the simulator catches
# each, in schedules or in the kept seeds. Prints one line per mutant; exits with 1 if any survived or no longer applies.
#   tests/sim/mutants.sh [NAME...]      SIM_SCHEDULES=n schedules per mutant (default 3000)
#   tests/sim/mutants.sh --check        only whether each still applies; takes no time
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
check=
if [ "${1:-}" = --check ]; then check=yes; shift; fi

# name | file | perl substitution over the whole file
mutants() { cat <<'LIST'
leader_first|crates/defragd-core/src/plan.rs|s/(    Follower \{.*?\},\n)(    Leader,\n)/$2$1/s
health_not_checked|crates/defragd-core/src/safety.rs|s/\.or_else\(\|\| unhealthy\(facts\)\)//
read_not_checked|crates/defragd-core/src/safety.rs|s/Some\(Err\(unknown\)\) => Some\(Reason::ReadFailed[^\n]*/Some(Err(_)) => None,/
unknown_counts_as_idle|crates/defragd-core/src/safety.rs|s/facts\.status\.as_ref\(\)\.err\(\)\.map/facts.status.as_ref().err().filter(|_| false).map/
in_flight_not_followed|crates/defragd-core/src/run/defragment.rs|s/Some\(true\) => watch = Watch \{ seen_busy: true, \.\.Watch::begin\(now\) \},/Some(true) => { watch.seen_busy = true; watch.idle_since = watch.idle_since.or(Some(now)); }/
goes_on_after_deadline|crates/defragd-core/src/run/defragment.rs|s/Ok\(\(\)\) => \{\n(\s+let times)/Ok(()) | Err(DefragError::Deadline) => {\n$1/
journal_failure_ignored|crates/defragd-core/src/run/choose.rs|s/if let Err\(NotRecorded\(detail\)\) = written \{\n(\s+return self\.give_up)/if let (Err(NotRecorded(detail)), false) = (written, true) {\n$1/
retries_after_lost_connection|crates/defragd-core/src/run/defragment.rs|s/Err\(DefragError::Lost\(detail\)\) => Reason[^\n]*/Err(DefragError::Lost(_)) => {\n let member = intent.member_id;\n self.phase = Phase::Defragmenting { intent, sent_at };\n return Action::Defragment { member, deadline: self.brief.policy.defrag_deadline };\n }/
stop_ignored|crates/defragd-core/src/run/mod.rs|s/self\.stop\.get_or_insert\(reason\);/let _ = reason;/
members_not_checked|crates/defragd-core/src/run/mod.rs|s/\(!change\.is_empty\(\)\)\.then/(change.len() > 99).then/
goes_on_after_failure|crates/defragd-core/src/run/mod.rs|s/self\.record\(intent, end, Some\(Outcome::Failed \{ reason \}\)\)/{ let _ = reason; self.record(intent, end, None) }/
observe_mode_acts|crates/defragd-core/src/run/choose.rs|s/if self\.brief\.policy\.mode == Mode::Observe \{/if self.brief.policy.mode == Mode::Observe && self.observations > 99 {/
corrupt_ignored|crates/defragd-core/src/safety.rs|s/has_alarm\(AlarmKind::Corrupt\)\.then_some/has_alarm(AlarmKind::Corrupt).then(|| Reason::CorruptAlarm).filter(|_| false).map(|_| true).unwrap_or(false).then_some/
lag_ignored|crates/defragd-core/src/safety.rs|s/\.or_else\(\|\| lag\(facts\)\)/.or_else(|| lag(facts).filter(|_| false))/
need_not_measured|crates/defragd-core/src/policy.rs|s/self\.min_fragmentation_ratio && reclaimable/self.min_fragmentation_ratio || reclaimable/
request_forgotten_while_reading|src/app/worker.rs|s/( +let waiting = self\.requests\.state\.lock\(\)\.waiting\(\)\.map\(\|open\| open\.id\);\n)( +let ledger = match self\.ledger\(\)\.await \{.*?\n {8}\};\n)/$2$1/s
request_forgotten_on_restart|src/app/service.rs|s/cluster\.requeue\([^\n]*\n/\n/
no_last_look|crates/defragd-core/src/run/choose.rs|s/self\.other_cluster\(facts\)\.or_else\(\|\| self\.no_longer_next\(&intent, facts\)\)/self.other_cluster(facts).filter(|_| false)/
gates_not_asked_before|crates/defragd-core/src/run/choose.rs|s/if has_work && !self\.entered \{/if has_work \&\& !self.entered \&\& self.observations > 99 {/
gates_not_asked_between|crates/defragd-core/src/run/choose.rs|s/if self\.has_gates\(Moment::Between\) => self\.check_gates/if self.has_gates(Moment::Between) \&\& self.observations > 99 => self.check_gates/
gate_failure_ignored|crates/defragd-core/src/run/gates.rs|s/find_map\(GateResult::against\)/find_map(GateResult::against).filter(|_| false)/
tries_again_after_a_full_disk|crates/defragd-core/src/backoff.rs|s/Reason::DiskFull \{ \.\. \} => true/Reason::DiskFull { .. } => false/
resumed_without_watching|crates/defragd-core/src/run/resume.rs|s/match self\.watch\(now, &intent, watch, facts\) \{/match (if true { DefragProgress::Idle(None, watch) } else { self.watch(now, &intent, watch, facts) }) {/
transfer_not_done|crates/defragd-core/src/run/choose.rs|s/if step\.transfer_first =>/if step.transfer_first \&\& self.observations > 99 =>/
auto_never_transfers|crates/defragd-core/src/plan.rs|s/LeaderPolicy::Auto => expected\.expected > policy\.transfer_above,/LeaderPolicy::Auto => expected.expected > Duration::MAX,/
auto_always_transfers|crates/defragd-core/src/plan.rs|s/LeaderPolicy::Auto => expected\.expected > policy\.transfer_above,/LeaderPolicy::Auto => expected.expected < Duration::MAX,/
auto_does_not_fall_back|crates/defragd-core/src/run/leader.rs|s/if self\.brief\.policy\.leader == LeaderPolicy::Auto \{/if self.brief.policy.leader == LeaderPolicy::Auto \&\& self.observations > 99 {/
gives_up_after_one_transfer|crates/defragd-core/src/run/leader.rs|s/MAX_TRANSFERS_WITH_AUTO: u32 = 2/MAX_TRANSFERS_WITH_AUTO: u32 = 1/
transfers_without_end|crates/defragd-core/src/run/leader.rs|s/self\.transfers < self\.max_transfers\(\) =>/self.transfers < 99 =>/
open_snapshot_ignored|crates/defragd-core/src/plan.rs|s/filter\(\|open\| \*open > 0\)\?/filter(|open| *open > 99)?/
open_snapshot_forgotten_without_a_page|crates/defragd-core/src/plan.rs|s/member\.open_snapshots\(\)\.or_else\(before\)/member.open_snapshots().or_else(|| before().filter(|_| false))/
alarm_stays_armed_for_a_snapshot|crates/defragd-core/src/run/choose.rs|s/next\.filter\(\|_\| !\(waits && disarm/next.filter(|_| !(waits \&\& self.observations > 99 \&\& disarm/
last_look_before_a_step_without_pages|crates/defragd-core/src/run/pages.rs|s/_ => Pages::All,/Phase::StepConfirming(_) => Pages::None,\n            _ => Pages::All,/
last_look_without_pages|crates/defragd-core/src/run/pages.rs|s/_ => Pages::All,/Phase::Confirming(_) => Pages::None,\n            _ => Pages::All,/
open_snapshot_not_looked_for_last|crates/defragd-core/src/run/choose.rs|s/plan\.blocked\.clone\(\)\.or_else\(\|\| step\.waits_for\.clone\(\)\)/plan.blocked.clone().or_else(|| step.waits_for.clone().filter(|_| false))/
answering_counts_as_idle|crates/defragd-core/src/cluster.rs|s/if !may_answer && !self\.may_answer\(\) =>/if !may_answer || self.may_answer() =>/
unknown_end_ignored|crates/defragd-core/src/plan.rs|s/\.or_else\(\|\| unknown_end\(facts, past\)\)/.or_else(|| unknown_end(facts, past).filter(|_| false))/
leader_not_skipped|crates/defragd-core/src/plan.rs|s/is_leader && policy\.leader == LeaderPolicy::Skip/is_leader && facts.members.len() > 99/
transfer_to_a_learner|crates/defragd-core/src/run/leader.rs|s/Reason::AlreadyDone \|/Reason::AlreadyDone | Reason::Learner |/; s/facts\n\s+\.voters\(\)/facts.members.iter()/
compaction_not_waited_for|crates/defragd-core/src/run/compact.rs|s/let rested = [^;]*;/let rested = true;/
keep_revisions_ignored|crates/defragd-core/src/run/compact.rs|s/facts\.oldest_revision\(\)\?\.checked_sub\(keep\)/facts.oldest_revision().filter(|_| keep < u64::MAX)/
compacted_again_after_a_restart|crates/defragd-core/src/run/resume.rs|s/RunStep::Compact \{ \.\. \} => run\.compacted = true,/RunStep::Compact { .. } => {}/
disarm_margin_ignored|crates/defragd-core/src/run/alarms.rs|s/usage >= QUOTA_MARGIN/usage >= 1.0/
disarmed_unasked|crates/defragd-core/src/run/choose.rs|s/let disarm = acts && self\.brief\.policy\.disarm_no_space && /let disarm = /
no_last_look_before_a_step|crates/defragd-core/src/run/step.rs|s/let against = self\s+\.blocking_reason\(facts\)\s+\.or_else/let against = self.blocking_reason(facts).filter(|_| false).or_else/
step_without_a_record|crates/defragd-core/src/run/step.rs|s/if let Err\(NotRecorded\(detail\)\) = written \{(\s+let reason)/if let (Err(NotRecorded(detail)), false) = (written, true) {$1/
window_ignored|crates/defragd-core/src/hold.rs|s/!any_time && !policy\.windows\.open_at\(now\)/any_time \&\& !policy.windows.open_at(now)/
window_close_ignored|crates/defragd-core/src/admission.rs|s/\(!open\)\.then_some\(Reason::WindowClosed/(!open \&\& emergency).then_some(Reason::WindowClosed/
pause_ignored|crates/defragd-core/src/admission.rs|s/\.or\(unapproved\)\.or_else\(\|\| self\.paused\(now\)\)/.or(unapproved).or_else(|| self.paused(now).filter(|_| false))/
approval_ignored|crates/defragd-core/src/admission.rs|s/Mode::Approve && run\.approved\.is_none\(\)/Mode::Approve \&\& run.approved.is_none() \&\& run.id.0 > 99/
breaker_opens_late|crates/defragd-core/src/admission.rs|s/failures >= policy\.breaker_failures/failures > policy.breaker_failures/
daily_limit_one_too_many|crates/defragd-core/src/admission.rs|s/recent\.len\(\)\.checked_sub\(/recent.len().saturating_sub(1).checked_sub(/
lock_permit_always_granted|src/app/lock.rs|s/self\.view\.state\.borrow\(\)\.lost\(self\.term, self\.view\.now\(\)\)/self.view.state.borrow().lost(self.term, self.view.now()).filter(|_| false)/
lock_validity_counts_from_the_answer|src/app/lock.rs|s/self\.heard\(sent_at, &answer\)/self.heard(sent_at.max(self.epoch.elapsed()), \&answer)/
lock_validity_without_a_margin|crates/defragd-core/src/lock.rs|s/ttl\.saturating_sub\(\*ttl \/ MARGIN_PART\)/ttl.saturating_sub(*ttl \/ MARGIN_PART \/ 1000)/
lock_held_past_its_end|crates/defragd-core/src/lock.rs|s/if now < \*until => Some\(\*term\)/if now < *until + *until => Some(*term)/
lock_won_anew_counts_as_never_lost|crates/defragd-core/src/lock.rs|s/if self\.held\(now\) == Some\(term\) => return None/if self.held(now) >= Some(term) => return None/
lock_begins_at_once_after_a_takeover|src/app/lock.rs|s/me, SETTLING, LockState/me, SETTLING \/ 1000, LockState/
lock_note_not_counted_in|src/app/note.rs|s/self\.shared\.journal\.inherit\(self\.name\(\), digest\)\.await\.map_err\(\|error\| error\.to_string\(\)\)\?;/drop(digest);/
own_note_revives_what_has_ended|src/app/note.rs|s/digest\.request\.clone\(\)\.filter\(\|_\| !ended_here\)/digest.request.clone().filter(|_| ended_here || !ended_here)/
lock_begins_without_the_note|src/app/succession.rs|s/if !self\.lock\.is_needed\(\) \{\n(\s+return Ok\(term\))/if term > Term(0) {\n$1/
forwarded_counts_as_done|crates/defragd-core/src/standing.rs|s/filter\(\|key\| standing\.contains\(key\) \|\| !is_over\(key\)\)/filter(|key| (standing.contains(key) \&\& self.runs.is_empty()) || !is_over(key))/
forwarded_and_forgotten|src/app/forward.rs|s/OfferAnswer::Accepted\(run\) => \(run, what\.alerts\.clone\(\)\),/OfferAnswer::Accepted(run) => return Ok(over(run)),/
what_is_over_is_offered_anew|crates/defragd-core/src/standing.rs|s/let is_known = taken\.is_some_and\(/let is_known = taken.filter(|_| false).is_some_and(/
joined_alert_not_offered|src/app/forward.rs|s/Some\(open\) if open\.request\.alerts != view\.request\.alerts =>/Some(open) if open.request.alerts.len() > 99 =>/
offered_only_once|src/app/forward.rs|s/if !left\.is_zero\(\) \{/if failures == 0 {/
cancelled_and_gone_on_with|crates/defragd-core/src/admission.rs|s/withdrawn\.or\(unapproved\)/withdrawn.filter(|_| false).or(unapproved)/
rejection_forgotten|crates/defragd-core/src/admission.rs|s/has_been\(rejection\.at, now\) && /has_been(rejection.at, now) \&\& self.runs.is_empty() \&\& /
rejection_not_left_to_the_next_holder|crates/defragd-core/src/ledger.rs|s/self\.rejections_of_its_own\(\)\.collect\(\);/self.rejections_of_its_own().filter(|_| false).collect();/
rejected_by_another_holder_and_asked_again|crates/defragd-core/src/hold.rs|s/\.or_else\(\|\| self\.rejected\(run, policy, now\)\)/.or_else(|| self.rejected(run, policy, now).filter(|_| false))/
cancelled_and_tried_again|crates/defragd-core/src/standing.rs|s/\(undone \|\| in_part\) && run\.cancelled\.is_none\(\)/undone/
a_reload_changes_nothing|src/app/cluster.rs|s/self\.set_rules\(Rules \{ policy: settings\.policy\.clone\(\)/drop(Rules { policy: settings.policy.clone()/
shutdown_forgets_the_request|crates/defragd-core/src/history/mod.rs|s/\| Reason::ShuttingDown\n/\n/
pause_forgets_the_request|crates/defragd-core/src/history/mod.rs|s/\| Reason::Paused \{ \.\. \}\n(\s+\| Reason::AwaitingApproval)/\n$1/
closed_window_forgets_the_request|crates/defragd-core/src/history/mod.rs|s/\n\s+\| Reason::WindowClosed \{ \.\. \}(\n\s+\}\n\s+\))/$1/
failure_forgets_the_request|crates/defragd-core/src/standing.rs|s/Refused \{ \.\. \} \| Failed \{ \.\. \} \| Interrupted \{ \.\. \}/Refused { .. } | Interrupted { .. }/; s/use Outcome::\{Failed, Interrupted, Refused\};/use Outcome::{Interrupted, Refused};/
emergency_waits_for_the_cooldown|crates/defragd-core/src/hold.rs|s/let is_limited = !by_operator && !emergency;/let is_limited = !by_operator;/
stale_sizes_are_believed|crates/defragd-core/src/policy.rs|s/MIN_GAIN_UNDER_NO_SPACE \|\| too_large\(\)/MIN_GAIN_UNDER_NO_SPACE \|\| (too_large() \&\& reclaimable.0 > u64::MAX \/ 2)/
failure_leaves_nospace_armed|crates/defragd-core/src/run/mod.rs|s/if self\.ending\.is_none\(\) && disarm/if self.ending.is_none() \&\& disarm \&\& self.observations > 99/
times_ahead_count|crates/defragd-core/src/ledger.rs|s/time <= after\(now, CLOCK_TOLERANCE\)/time <= after(now, CLOCK_TOLERANCE) || now < time/
each_spelling_is_an_alert|crates/defragd-core/src/request.rs|s/starts_at\.parse::<Timestamp>\(\)\.map_or_else/starts_at.parse::<Timestamp>().map(|_| starts_at).map_or_else/
approval_of_a_run_under_way_not_asked_for|crates/defragd-core/src/hold.rs|s/run\.started_at\.is_some\(\) && \(!lacks_approval \|\| run\.open_intent\.is_some\(\)\)/run.started_at.is_some()/
a_pause_replaces_all_pauses|crates/defragd-core/src/order.rs|s/pauses\.insert\(by, record\);/pauses.clear();\n                pauses.insert(by, record);/
without_gain_no_heir|crates/defragd-core/src/run/leader.rs|s/\n\s+\| Reason::NoGain \{ \.\. \}//
another_hold_is_shown|src/app/worker.rs|s/open\.waits_for = Some\(\(reason, since\)\);/open.waits_for.get_or_insert((reason, since));/
alert_forgotten_after_its_run|crates/defragd-core/src/hold.rs|s/run\.outcome\.is_none\(\) \|\| run\.request\.alerts\.iter\(\)\.any\(AlertKey::is_described\)/run.outcome.is_none() || run.request.alerts.len() > 99/
end_of_a_served_alert_not_recorded|src/app/requests.rs|s/if standing != Some\(run\) && alerts\.contains\(&key\) \{/if standing.is_some() \&\& standing != Some(run) \&\& alerts.contains(\&key) {/
an_upgrade_is_no_danger|crates/defragd-core/src/safety.rs|s/minors\.len\(\) < 2/minors.is_empty() || minors.len() > 0/
nospace_waits_for_an_upgrade|crates/defragd-core/src/safety.rs|s/if facts\.has_alarm\(AlarmKind::NoSpace\) \{\n\s+return None;\n\s+\}\n//
a_downgrade_is_no_danger|crates/defragd-core/src/safety.rs|s/status\.downgrade_to\.as_deref\(\)\?/status.downgrade_to.as_deref().filter(|_| false)?/
schedule_not_kept|src/app/schedule.rs|s/timetable\.due\(since, now\)/timetable.due(since, now).filter(|_| false)/
missed_due_time_not_caught_up|crates/defragd-core/src/schedule.rs|s/CATCH_UP: Duration = Duration::from_hours\(1\)/CATCH_UP: Duration = Duration::from_secs(75)/
due_time_requested_again|crates/defragd-core/src/due.rs|s/alerts\.contains\(&own\)/alerts.contains(\&own) \&\& run.id.0 > 99/; s/due <= until && /now < due \&\& due <= until \&\& /
clock_set_back_repeats_due_times|crates/defragd-core/src/due.rs|s/alerts\.contains\(&own\)/alerts.contains(\&own) \&\& run.id.0 > 99/; s/has_been\(until, now\) \|\| /has_been(until, now) \&\& /
cooldown_ignored|crates/defragd-core/src/admission.rs|s/\(until > now\)\.then_some\(Reason::Cooldown \{ until \}\)/None::<Reason>.filter(|_| until > now)/
a_failure_starts_the_cooldown|crates/defragd-core/src/ledger.rs|s/counts_for_the_day\(run\) && !has_failed/counts_for_the_day(run) \&\& (!has_failed || run.starts > 0)/
no_back_off_for_a_new_alert|crates/defragd-core/src/admission.rs|s/\(at > now\)\.then_some\(Reason::RetryPending \{ at \}\)/None::<Reason>.filter(|_| at > now)/
mismatch_ignored|crates/defragd-core/src/run/verify.rs|s/\(Some\(reason\), _\) => \{/(Some(reason), Err(_)) => {/; s/\(None, Ok\(\(\)\)\) => \{/(_, Ok(())) => {/
operators_run_only_compares|src/app/requests.rs|s/requested: true/requested: false/
data_not_compared|crates/defragd-core/src/run/choose.rs|s/None if self\.has_to_verify\(disarm\) =>/None if self.observations > 99 =>/
mismatch_holds_nothing|crates/defragd-core/src/hold.rs|s/once_with\(move \|\| self\.mismatch\(\)\)/once_with(move || self.mismatch().filter(|_| false))/
one_reading_condemns|crates/defragd-core/src/verify.rs|s/\(HashVerdict::Different, None\) => \{\n.*?\n {12}\}\n/(HashVerdict::Different, None) => Some(reading),\n/s
comparison_forgotten_by_the_next_attempt|crates/defragd-core/src/run/verify.rs|s/self\.past\.work\.uncompared/(self.past.work.uncompared \&\& self.observations > 99)/
done_for_resolved_alerts_counts_for_later_ones|crates/defragd-core/src/standing.rs|s/counts_for_the_day\(run\) \|\| was_withdrawn\(run\)/counts_for_the_day(run) || (was_withdrawn(run) \&\& self.runs.is_empty())/
done_again_by_the_next_attempt|crates/defragd-core/src/plan.rs|s/past\.work\.done\.contains\(&member\.member\.id\)/past.work.done.contains(\&member.member.id) \&\& facts.members.len() > 99/
began_under_changed_rules|src/app/worker.rs|s/ && still_the_rules//; s/(let &Attempt \{[^;]*;)/$1\n        let rules = \&self.rules();/
failure_before_a_crash_leaves_nospace_armed|crates/defragd-core/src/run/resume.rs|s/if run\.may_disarm\(\) =>/if run.may_disarm() \&\& run.observations > 99 =>/
operators_request_revives_what_alerts_requested|crates/defragd-core/src/standing.rs|s/is_last\(run\) \|\| by_operator && !is_operators\(run\)/is_last(run)/; s/!anew_since \|\|/(anew_since || true) ||/
cancelled_and_offered|src/app/forward.rs|s/= view\.withdrawn\(\)/= view.withdrawn().filter(|_| false)/
stop_known_after_the_next_step|src/app/worker.rs|s/(            never = stops => match never \{\},\n)(            _ = drive\.to_its_end\(stopped\) => \{\}\n)/$2$1/
old_observation_is_good_enough|src/app/driver.rs|s/OBSERVATION_LIMIT: Duration = Duration::from_secs\(15\)/OBSERVATION_LIMIT: Duration = Duration::from_secs(3600)/
own_note_is_believed_after_the_end|crates/defragd-core/src/note.rs|s/\|term\| term >= self\.term\)/|term| term > self.term)/; s/is_later \|\| self\.is_own && self\.goes_on\(run\)/is_later/; s/ && !\(self\.is_own && self\.goes_on\(run\)\)//
continued_request_is_taken_for_a_new_one|crates/defragd-core/src/standing.rs|s/ && !attempts\.get\(index \+ 1\)\.is_some_and\(continues\)//
last_holders_work_is_not_known|crates/defragd-core/src/note.rs|s/run\.term\.is_some_and\(\|term\| term < self\.term\)/run.term.is_some_and(|term| term < self.term \&\& run.starts > 99)/
operators_request_lost_to_an_alert_between_attempts|crates/defragd-core/src/standing.rs|s/else if !is_operators \{/else {/
operators_request_lost_at_a_successor_with_its_own|src/app/requests.rs|s/let is_needed = if stands \{ left\.approved_by\.is_some\(\) \}/let is_needed = if stands { false }/
journal_down_leaves_nospace_armed|crates/defragd-core/src/run/alarms.rs|s/self\.disarmed\.remove\(&member_id\);//
due_time_counts_no_longer_than_its_run|crates/defragd-core/src/history/run_view.rs|s/due\.or\((looked\.then_some\(self\.accepted_at\))\)\.into_iter\(\)\.chain\(over\)/over.or(due).or($1).into_iter()/
open_request_counts_as_over|crates/defragd-core/src/standing.rs|s/filter\(\|_\| stands\)/filter(|_| stands \&\& self.runs.is_empty())/
request_in_the_journal_not_shown|crates/defragd-core/src/hold.rs|s/self\.runs\.last\(\)\.filter\(\|run\| run\.outcome\.is_none\(\)\)/self.runs.last().filter(|run| run.outcome.is_none() \&\& run.id.0 > 99)/
transferred_though_another_came_to_need_it|crates/defragd-core/src/run/leader.rs|s/\(!is_next\)\.then\(moved_on\)/(!is_next \&\& facts.leader() != Some(*from)).then(moved_on)/
failed_since_the_note_and_not_measured_again|crates/defragd-core/src/note.rs|s/self\.inherited_during == Some\(run\.id\)/self.inherited_during == Some(run.id) \&\& run.starts > 99/
LIST
}

applies() { ! perl -0pe "$2" "$root/$1" | cmp -s - "$root/$1"; }

if [ -n "$check" ]; then
  stale=0
  while IFS='|' read -r name file patch; do
    applies "$file" "$patch" || { echo "STALE     $name: the patch no longer applies to $file"; stale=1; }
  done < <(mutants)
  exit $stale
fi

scratch=$root/target/mutants
work=$scratch/work
export CARGO_TARGET_DIR=$scratch/target
export SIM_SCHEDULES=${SIM_SCHEDULES:-3000}
mkdir -p "$work/tests"
if [ ! -d "$CARGO_TARGET_DIR" ] && [ -d target/debug/deps ]; then
  # The dependencies are built already: links to them save minutes. Not our own crates: they would be written through the
  # links, and the tests of this checkout would run against a library from other sources.
  mkdir -p "$CARGO_TARGET_DIR/debug"
  cp -al target/debug/{deps,build} "$CARGO_TARGET_DIR/debug/"
  cp -a target/debug/.fingerprint "$CARGO_TARGET_DIR/debug/"
  rm -rf "$CARGO_TARGET_DIR"/debug/{deps,build,.fingerprint}/*defragd*
fi

reset() {
  rm -rf "$work/src" "$work/crates" "$work/tests/sim"
  cp -r "$root/src" "$root/crates" "$work/"
  cp -r "$root/tests/sim" "$work/tests/sim"
  cp "$root/Cargo.lock" "$work/"
  # Only the library and the simulator: no binary to link, no other members.
  rm -f "$work/src/main.rs"
  perl -0pe 's/^members = .*/members = ["crates\/*"]/m; s/^default-run.*//m; s/^(testkit|fleet) = .*//mg; s/^readme = .*//m;
    s/^\[\[bench\]\]\n[^\[]*//m' "$root/Cargo.toml" > "$work/Cargo.toml"
}

survived=0
wanted=" $* "
while IFS='|' read -r name file patch; do
  if [ $# -gt 0 ] && [[ $wanted != *" $name "* ]]; then continue; fi
  if ! applies "$file" "$patch"; then
    echo "STALE     $name: the patch no longer applies to $file"; survived=1; continue
  fi
  reset
  perl -0pi -e "$patch" "$work/$file"
  log=$scratch/$name.log
  if ! (cd "$work" && nice cargo test --offline --test sim --no-run) > "$log" 2>&1; then
    echo "BROKEN    $name: does not compile, see $log"; survived=1; continue
  fi
  if (cd "$work" && nice cargo test --offline --test sim -- every_schedule seeds_that_failed_once) >> "$log" 2>&1; then
    echo "SURVIVED  $name"; survived=1
  else
    found=$(grep -m1 -E '^seed [0-9]+( \(.*\))?: ' "$log" || grep -m1 -i 'panicked' "$log" || true)
    echo "caught    $name: $found"
  fi
done < <(mutants)
exit $survived
