//! The platform as its clients see it: who may do what, what is kept, what an attacker tries. One binary, because linking
//! costs more than running. Nothing here waits by the clock: tests wait for events.

mod administration;
#[path = "../common/api.rs"]
mod api;
#[path = "../common/app.rs"]
mod app;
mod audit;
mod batches;
mod changes;
mod crowd;
#[path = "../database/mod.rs"]
mod database;
mod files;
#[path = "../common/form.rs"]
mod form;
mod full_disk;
mod lists;
mod metering;
mod models;
mod own_account;
mod permissions;
mod references;
mod refusals;
mod responses;
mod revocation;
mod rig;
mod security_a;
mod security_b;
mod security_c;
#[path = "../common/shape.rs"]
mod shape;
mod shapes;
mod signing_keys;
mod stored_chats;
mod tickets;
mod turns;
mod usage;
