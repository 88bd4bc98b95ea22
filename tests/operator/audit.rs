//! `sconce audit`: each way of tampering with the rows is found, and the first bad row is named.

use crate::process::Machine;
use serde_json::Value;

/// A machine whose audit has the rows of a first run and, copied onto a chain of their own, some more.
async fn machine_with_rows() -> Machine {
    let machine = Machine::new().await;
    machine.serve().await.kill().await;
    machine
}

/// What `audit verify` says is wrong.
async fn fault(machine: &Machine) -> String {
    machine.run(&["audit", "verify"]).await.refused()
}
