//! The answers of a simulated member. Even clusters run release 3.6, which reports the quota in `Status`; odd ones 3.5,
//! which reports it only on the metrics page.

use std::{fmt::Write, sync::LazyLock};

use bytes::Bytes;

use crate::{
    plan::{MEMBERS, Plan},
    wire::Message,
};

const GIB: u64 = 1 << 30;
/// A real page has as many lines; reading it is part of the cost.
static OTHER_METRICS: LazyLock<String> = LazyLock::new(|| {
    let mut page = String::new();
    for histogram in 0..60 {
        let name = format!("etcd_simulated_{histogram}_duration_seconds");
        let _ = writeln!(page, "# HELP {name} As long as the help of a real metric is.\n# TYPE {name} histogram");
        for bucket in 0..15 {
            let _ = writeln!(page, "{name}_bucket{{le=\"{}\"}} {}", f64::from(1 << bucket) / 1000.0, bucket * 1234);
        }
        let _ = writeln!(page, "{name}_sum 1234.5678\n{name}_count 18510");
    }
    page
});

/// One member.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// Of which cluster.
    pub cluster: usize,
    /// Which one.
    pub member: usize,
}

impl Speaker {
    fn id(cluster: usize, member: usize) -> u64 {
        0x8e9e_05c5_2164_694d ^ ((cluster as u64) << 32 | member as u64)
    }

    fn own_id(self) -> u64 {
        Self::id(self.cluster, self.member)
    }

    fn is_new_release(self) -> bool {
        self.cluster.is_multiple_of(2)
    }

    fn size(self) -> u64 {
        GIB + (self.cluster as u64 * 7 + self.member as u64) * 4096
    }

    fn header(self) -> Message {
        Message::default()
            .number(1, 0xcdf8_181e_3227_7000 + self.cluster as u64)
            .number(2, self.own_id())
            .number(3, 1_234_567)
            .number(4, 7)
    }

    /// `StatusResponse`.
    pub(crate) fn status(self) -> Message {
        let status = Message::default()
            .message(1, &self.header())
            .text(2, if self.is_new_release() { "3.6.10" } else { "3.5.25" })
            .number(3, self.size())
            .number(4, Self::id(self.cluster, self.cluster % MEMBERS))
            .number(5, 2_345_678)
            .number(6, 7)
            .number(7, 2_345_678)
            .number(9, self.size() / 2);
        if self.is_new_release() { status.text(11, "3.6.0").number(12, 8 * GIB) } else { status }
    }

    /// `MemberListResponse`.
    pub(crate) fn member_list(self, plan: &Plan) -> Message {
        (0..MEMBERS).fold(Message::default().message(1, &self.header()), |list, member| {
            let url = plan.url(self.cluster, member);
            let entry = Message::default()
                .number(1, Self::id(self.cluster, member))
                .text(2, &format!("etcd-{member}"))
                .text(3, &url)
                .text(4, &url);
            list.message(2, &entry)
        })
    }

    /// `RangeResponse` and `AlarmResponse`: nothing is there, no alarm is armed.
    pub(crate) fn nothing(self) -> Message {
        Message::default().message(1, &self.header())
    }

    /// The metrics page.
    pub(crate) fn page(self, busy: bool) -> Bytes {
        format!(
            "{}# TYPE etcd_disk_defrag_inflight gauge\netcd_disk_defrag_inflight {}\n\
             etcd_server_quota_backend_bytes {}\netcd_mvcc_db_total_size_in_bytes {}\n\
             etcd_mvcc_db_total_size_in_use_in_bytes {}\n",
            *OTHER_METRICS,
            u8::from(busy),
            8 * GIB,
            self.size(),
            self.size() / 2
        )
        .into()
    }
}
