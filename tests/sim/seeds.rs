//! Seeds that revealed a defect, each with a description of it. They stay as tests.

/// Fixed: the seed, and what was wrong. Played with one replica.
pub const REGRESSIONS: &[(u64, &str)] = &[
    (71, "I7: while the journal is slow to take the intent, the observation grows old, and Defragment goes out on it"),
    (2773, "I7: the same, 33 s old"),
    (1746, "I5: killed right after a send and restarted at once, while the Defragment is still on its way"),
    (105_555, "I2: a run whose end could not be written while its window was closed stayed open beside the next one"),
    (113_158, "I6: a request that was cancelled while the journal was slow was ended once more, as not approved"),
    (
        3026,
        "L1: a failed run over members whose data differs ended as failed, and left NOSPACE armed without saying why",
    ),
    (798, "S2: the end of a waiting request was not in the note, and the next holder took the request up again"),
    (6154, "S2: a due time was requested again after the clock had jumped during its run"),
    (2, "liveness: a request that came while the journal was read was forgotten until the next start"),
    (323_072, "gates: killed between a gate's failure and the end of the run, it continued after the restart"),
    (7355, "L1: a run that was blocked after a crash failed and left NOSPACE armed, and every file was small"),
    (2225, "L1, of the simulator: a pause that is taken back has stopped the run all the same"),
    (2838, "L1: no voter could lead, because an operator had to act on one first, and the reason did not say so"),
    (
        1_008_098,
        "approval: while members were asked, a reload to approve came, and the run began in a mode nobody approved",
    ),
    (1_052_999, "approval: the same"),
    (500_608, "policy, of the simulator: a slow journal records a start after the mode has changed"),
    (
        205_513,
        "L1, of the simulator: an alert joins a run that is cancelled already, and what stopped it stays stopped",
    ),
    (502_823, "L3, of the simulator: while the journal is slow to answer that a run has ended, it is in progress"),
    (1_005_395, "L3, of the simulator: the same, for a run that failed"),
    (136_942, "I4, of the simulator: a cancellation that a slow journal has not answered yet counts from its answer"),
    (
        1_050_968,
        "liveness: an operator requested a run while one waited that only compares, and that one did no more than that",
    ),
    (4752, "liveness: a run that a crash interrupted, and that then needed an approval, could not be approved"),
    (12834, "liveness, of the simulator: metrics pages that were lost for longer than the schedule had not returned"),
    (14111, "liveness, of the simulator: the same"),
    (203_298, "liveness, of the simulator: the same"),
    (1_004_127, "liveness, of the simulator: the same"),
    (1_026_006, "liveness, of the simulator: the same"),
    (1_050_847, "liveness, of the simulator: the same"),
    (
        1_028_858,
        "liveness, of the simulator: upgraded members that answer at work, and whose pages do not show it, are refused",
    ),
    (17675, "L1, of the simulator: the same, requested again each hour, and only an operator can change it"),
    (201_150, "L1, of the simulator: the same, in mode observe"),
    (
        200_091,
        "S2: the clock was set back by a day behind a run's end, and less behind its due time, which did not count",
    ),
    (504_496, "S2: the same, three days behind the end and 42 minutes behind the due time"),
    (
        17_786,
        "again, of the simulator: a request was cancelled between two attempts, and its members count as done no more",
    ),
    (504_434, "again, of the simulator: the same, as a slow journal recorded the cancellation after the run's end"),
    (1_052_570, "again, of the simulator: the same, after a refused attempt"),
    (
        129_440,
        "again, of the simulator: a run whose end could not be written failed, after which all members are measured again",
    ),
    (
        16015,
        "I2: an operator moved leadership back, and after five minutes the leader was defragmented in place for it",
    ),
    (1_007_457, "I2: leadership came back, as its new holder froze, and was not transferred again"),
    (1_029_770, "I2: the same in an upgrade"),
    (1_002_271, "I2, of the simulator: leadership came back twice, and then the leader is defragmented as it is"),
    (17213, "I2, of the simulator: a full file without free pages that did not shrink counted as one that gained"),
    (61413, "I2, of the simulator: after an attempt without gain, 1 MiB more counted as enough for any need"),
    (1_052_384, "I2, of the simulator: the same, before the leader in place"),
    (2_021_315, "I4: a stop that came just before a run began was known to it only after its first member was chosen"),
    (2_077_138, "L1: killed between a failure and the disarming, the next process ended the run at once"),
    (304_978, "I2, of the simulator: compactions left nothing at all in use, and a copy of nothing takes no time"),
    (29507, "L1: a failed run left NOSPACE armed until the next attempt, as the journal was down for a moment"),
    (96371, "L1: the same"),
    (2_024_786, "L1: the same"),
    (142_287, "L1, of the simulator: the alert's end was in a slow journal, and not answered yet"),
    (
        168_333,
        "L3, of the simulator: a run under way keeps its mode, and waits for no approval after a reload to approve",
    ),
    (85395, "liveness, of the simulator: a learner whose version is not known looks like an upgrade to the end"),
    (2_027_545, "policy, of the simulator: a single voter has nobody to transfer leadership to"),
    (2_034_178, "policy, of the simulator: the same"),
    (
        10_052_478,
        "I4, of the simulator: a slow journal records an intent that was decided before the run was cancelled",
    ),
    (10_076_764, "L3: a retry was on a slow disk, and until that was known, its alert was not shown any more"),
    (
        10_275_317,
        "L3, of the simulator: while the journal is slow to answer that a request is accepted, defragd may not know it",
    ),
    (
        10_220_426,
        "withdrawn, of the simulator: an alert's end that came shortly before the alert itself was recorded ends nothing",
    ),
    (
        10_260_089,
        "I2: while a transfer was on a slow disk, a follower came to need a defragmentation, and leadership moved all the same",
    ),
    (
        10_173_696,
        "I2, of the simulator: an alert that joins a cancelled run, whose end a slow journal has not answered, continues it",
    ),
    (
        11_010_810,
        "L4, of the simulator: before the finale, a process that was gone still answered what had waited in it",
    ),
    (
        10_235_031,
        "I3, of the simulator: a member that is watched while Defragment is on its way to it belongs to no observation",
    ),
];

/// The same, played with several replicas.
pub const OF_REPLICAS: &[(u64, &str)] = &[
    (150_508, "I2: what alerts had requested before counted as done for an operator's request that was broken off"),
    (102_065, "I2, of the simulator: alerts join what is left of an operator's request, and its members count as done"),
    (101_707, "I6, of the simulator: at the moment at which all alerts are resolved, a request may end as forwarded"),
    (
        102_142,
        "I6, of the simulator: an alert that is resolved at a replica is not offered by it, though it fires elsewhere",
    ),
    (151_589, "I6, of the simulator: the same, of a later due time"),
    (8_001_394, "I6, of the simulator: the same, and the holder has had another run since"),
    (103_474, "I6, of the simulator: a due time that the new holder has served ends at its first offer to it"),
    (4565, "I2, of the simulator: with its journal lost, a replica knows what was done from its own note"),
    (
        567,
        "again, of the simulator: another holder's mismatch ended the request, and its members count as done no more",
    ),
    (1224, "I1: a member that answers at work and whose page is away was still at it when another replica began"),
    (1225, "I5: the same member got a second one from the next holder, which knew nothing of the first"),
    (
        299,
        "liveness: a replica whose candidacy ran out under NOSPACE did not learn who holds the lock, and handed nothing over",
    ),
    (1541, "liveness: a pause from a holder whose clock was an hour ahead could not be lifted at the next holder"),
    (
        6652,
        "I6: a run by hand that was forwarded, and joined by an alert since, was requested again every 3 s, for ever",
    ),
    (
        19915,
        "liveness: what the daily limit held back was said to be tried again, and the other replica waited for that for a day",
    ),
    (110, "L1: alerts that joined a request one by one were each taken for new by turns, and offered anew for ever"),
    (20819, "policy: an attempt without gain was tried again, as the clock was set back behind an inherited attempt"),
    (31445, "I6: a due time in the last holder's note was lost at a successor that had a request of its own"),
    (703, "policy: attempts after a resume were forgotten, as the clock was set back by a day behind the resume"),
    (3033, "L3, of the simulator: another Alertmanager's copy of a resolved alert arrived late, and fires"),
    (9186, "L3, of the simulator: with a slow journal, the resolved alert was recorded before the firing one"),
    (
        1_025_473,
        "again: a replica's failure before another one held the lock undid what that one had done for the request",
    ),
    (
        139_253,
        "again: a run that had ended before the note was read, and had never started, undid the note's work, too",
    ),
    (135_223, "I2: what a replica had done for a request that another one then served counted for the next request"),
    (127_725, "again: another holder failed after it, and what a replica had done itself was not measured again"),
    (
        9792,
        "L3: an alert that a run without labels had served, and that was resolved, fired again for the run before it",
    ),
    (
        1_905_486,
        "I2: by its own note, older than the end of a request, a replica took its work for that of the next one",
    ),
    (
        2_007_671,
        "again: a holder forgot what was done for alerts, as the last run for them was an operator's and refused",
    ),
    (4_000_110, "I2: what alerts had requested counted again after an operator's run, as a new alert continued that"),
    (
        2_055_326,
        "I6: after a crash, a replica without the lock offered what an operator had cancelled to the next holder",
    ),
    (
        10_092_933,
        "I6: a due time that a later one's request decides ended as forwarded to run 0, while that request was open",
    ),
    (10_203_080, "I6: the same, decided by a run in progress for an alert"),
    (10_333_141, "I6: the same, while the next due time's run was in progress"),
    (
        10_256_721,
        "I6, of the simulator: a request is over as soon as its cancellation is recorded, before that is answered",
    ),
    (
        10_174_676,
        "I2: the lock was lost and won again during a run that then failed, and its members were not measured again",
    ),
    (10_307_611, "I2: the same, after another holder's note was read"),
    (
        10_182_787,
        "I2, of the simulator: what a run had done before a crash is its own work, whatever another holder has left since",
    ),
    (10_246_095, "I2, of the simulator: a note that is read again says nothing new"),
    (10_208_824, "again, of the simulator: its own note says nothing new to a replica whose journal is there"),
    (
        10_331_872,
        "again, of the simulator: what another holder has done for alerts does not count for an operator's request",
    ),
    (
        10_002_484,
        "S2: its own note, written while a run was in progress, revived a request that this run had satisfied since",
    ),
    (150_271, "I7: stopped while it looked a last time, a replica sent Defragment on what it had seen 24 s before"),
];
