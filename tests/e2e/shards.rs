//! Shards on one real etcd: an alert at the wrong shard becomes a run of the right one, by whichever of its replicas
//! holds the lock.

use serde_json::{Value, json};
use testkit::{Defragd, Port};

use crate::{
    faults::{newest, received},
    replicas::{Replica, TTL},
    rig::{Rig, TOKEN, binary, firing},
};
